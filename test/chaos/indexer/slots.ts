import { type IndexerState, indexerStateSchema } from "@lim/contracts";
import {
  eventually,
  type FlakyProxy,
  type Servers,
  type Service,
  startFlakyProxy,
  startService,
} from "@lim/testkit";
import { type Findings, lastWords, textOf } from "../findings.ts";
import { childrenOf, isAlive, type SeenProcess } from "../processes.ts";
import type { Chances } from "../random.ts";

/** A build's processes are gone this long after their service at the latest; what was stopped counts from its awakening. */
const orphanLimitMs = 20_000;
const stateTimeoutMs = 1_000;
const drainMs = { least: 0, most: 3_000 } as const;
/** Above the drain: cancelling, reporting the outcome, closing connections, and a machine that is busy. */
const exitSlackMs = 40_000;
const startAttempts = 3;

/** A place for one indexer, that is killed and started again; its Postgres is behind a proxy. */
export interface Slot {
  readonly name: string;
  readonly proxy: FlakyProxy;
  /** Undefined while it is being replaced. */
  service(): Service | undefined;
  /** Undefined where it gives no answer in time. */
  state(): Promise<IndexerState | undefined>;
  /** Processes of its build, the oldest first. */
  children(): Promise<SeenProcess[]>;
  start(): Promise<void>;
  /** Kills it and says which processes of a build it left. */
  kill(): Promise<SeenProcess[]>;
  /** Tells it to end, and judges how it does. */
  drain(): Promise<void>;
  /** Judges that they end by themselves. */
  watchOrphans(orphans: readonly SeenProcess[]): Promise<void>;
  close(): Promise<void>;
  /** All services that ran here. */
  readonly everyone: readonly Service[];
}

export async function openSlot(options: {
  name: string;
  servers: Servers;
  env: Readonly<Record<string, string>>;
  chances: Chances;
  findings: Findings;
}): Promise<Slot> {
  const { name, servers, chances, findings } = options;
  const database = new URL(servers.postgres.url);
  const proxy = await startFlakyProxy(Number(database.port || 5432));
  database.hostname = "127.0.0.1";
  database.port = String(proxy.port);
  const everyone: Service[] = [];
  let current: Service | undefined;
  let drainTimeoutMs = 0;

  const launch = async (port: number) => {
    drainTimeoutMs = Math.round(chances.between(drainMs.least, drainMs.most));
    return startService(servers, {
      kind: "indexer",
      name: `${name}-${everyone.length + 1}`,
      port,
      env: { ...options.env, DATABASE_URL: database.href, LIM_DRAIN_TIMEOUT_MS: String(drainTimeoutMs) },
    });
  };
  const leave = (): Service | undefined => {
    const left = current;
    current = undefined;
    return left;
  };
  const slot: Slot = {
    name,
    proxy,
    everyone,
    service: () => current,
    state: async () => (current ? stateOf(current) : undefined),
    children: async () => (current ? childrenOf(current.process.pid) : []),
    async start() {
      // Mostly where it was before, so that managers meet a restarted indexer as well as a new one.
      const before = everyone.at(-1);
      let port = before && chances.hits(0.7) ? Number(new URL(before.url).port) : 0;
      for (let attempt = 1; ; attempt++)
        try {
          const service = await launch(port);
          everyone.push(service);
          current = service;
          void service.process.exited.then((ended) => {
            if (current === service)
              findings.violation(`${service.name} ended by itself with ${ended}: ${lastWords(service)}`);
          });
          return;
        } catch (error) {
          // Somebody else may have its port now.
          if (attempt === startAttempts) throw error;
          const reason = /EADDRINUSE/.test(textOf(error))
            ? "its port was taken"
            : textOf(error).slice(0, 300);
          findings.count("harness", `starts that failed: ${reason}`);
          port = 0;
        }
    },
    async kill() {
      const service = leave();
      if (!service) return [];
      const children = await childrenOf(service.process.pid);
      service.process.kill("SIGKILL");
      await service.process.exited;
      await servers.ledger.forget(service.process.pid);
      return children;
    },
    async drain() {
      const service = leave();
      if (!service) return;
      const children = await childrenOf(service.process.pid);
      service.process.kill("SIGTERM");
      await judgeExit(service, drainTimeoutMs + exitSlackMs, findings);
      await servers.ledger.forget(service.process.pid);
      await slot.watchOrphans(children);
    },
    watchOrphans: (orphans) => judgeOrphans(name, orphans, findings),
    async close() {
      proxy.resume();
      current?.process.kill("SIGCONT");
      await slot.drain();
      await proxy.close();
    },
  };
  return slot;
}

async function stateOf({ url }: Service): Promise<IndexerState | undefined> {
  try {
    const signal = AbortSignal.timeout(stateTimeoutMs);
    return indexerStateSchema.parse(await (await fetch(`${url}/state`, { signal })).json());
  } catch {
    return undefined;
  }
}

async function judgeExit(service: Service, limitMs: number, findings: Findings): Promise<void> {
  const ended = await eventually(`${service.name} ends`, () => service.process.exited, {
    timeoutMs: limitMs,
  }).catch(() => undefined);
  if (ended === undefined) {
    findings.violation(`${service.name} did not end within ${limitMs} ms of SIGTERM`);
    service.process.kill("SIGKILL");
  } else if (ended !== 0)
    findings.violation(`${service.name} ended with ${ended} after SIGTERM: ${lastWords(service)}`);
}

async function judgeOrphans(
  indexer: string,
  orphans: readonly SeenProcess[],
  findings: Findings,
): Promise<void> {
  for (const orphan of orphans)
    await eventually(`process ${orphan.pid} ends`, async () => ((await isAlive(orphan)) ? undefined : true), {
      timeoutMs: orphanLimitMs,
      intervalMs: 50,
    }).catch((error: unknown) =>
      findings.violation(
        `a build's process outlived its indexer ${indexer}: ${textOf(error)} (${orphan.commandLine})`,
      ),
    );
}
