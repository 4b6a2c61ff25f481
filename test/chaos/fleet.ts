import { eventually, type Servers, type Service, startService } from "@lim/testkit";

const askTimeoutMs = 1_000;
const readyLimitMs = 45_000;

export interface Member {
  readonly service: Service;
  /** Stopped by SIGSTOP, or about to end. */
  away: boolean;
}

/** Manager processes, some of which are killed and replaced. */
export interface Fleet {
  readonly members: readonly Member[];
  /** URLs of those that should answer. */
  urls(): string[];
  /** Starts another in the background; a start that fails shows in `failures`. */
  add(): void;
  drop(member: Member): void;
  isMaster(member: Member): Promise<boolean>;
  /** Waits until all wanted members run and exactly one of them leads. */
  untilSteady(): Promise<Member>;
  readonly failures: string[];
  /** Those that are gone too. */
  readonly everyone: readonly Service[];
  stop(): Promise<void>;
}

export function createFleet(servers: Servers, size: number, env: Readonly<Record<string, string>>): Fleet {
  const members: Member[] = [];
  const everyone: Service[] = [];
  const starting = new Set<Promise<void>>();
  const failures: string[] = [];
  let started = 0;
  let stopping = false;
  const add = () => {
    const name = `manager-${++started}`;
    const start = startService(servers, { kind: "index-manager", name, port: 0, env })
      .then(async (service) => {
        members.push({ service, away: false });
        everyone.push(service);
        if (stopping) await service.process.stop();
      })
      .catch((error: unknown) => {
        failures.push(error instanceof Error ? error.message : String(error));
      })
      .finally(() => starting.delete(start));
    starting.add(start);
  };
  const isMaster = async (member: Member) => {
    const response = await fetch(`${member.service.url}/1/master`, {
      signal: AbortSignal.timeout(askTimeoutMs),
    });
    return ((await response.json()) as { is_master: boolean }).is_master;
  };
  for (let i = 0; i < size; i++) add();
  return {
    members,
    failures,
    urls: () => members.filter((member) => !member.away).map((member) => member.service.url),
    add,
    drop(member) {
      members.splice(members.indexOf(member), 1);
      void servers.ledger.forget(member.service.process.pid);
    },
    isMaster,
    untilSteady: () =>
      eventually(
        `${size} managers run and one leads`,
        async () => {
          if (failures.length > 0) throw new Error(failures.join("; "));
          if (members.length < size) return undefined;
          const flags = await Promise.all(members.map(isMaster));
          const masters = members.filter((_, i) => flags[i]);
          return masters.length === 1 ? masters[0] : undefined;
        },
        { timeoutMs: readyLimitMs },
      ),
    everyone,
    async stop() {
      stopping = true;
      await Promise.allSettled(starting);
      for (const member of members) if (member.away) member.service.process.kill("SIGCONT");
      await Promise.allSettled(members.map((member) => member.service.process.stop({ graceMs: 10_000 })));
    },
  };
}
