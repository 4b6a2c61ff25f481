import {
  eventually,
  type FlakyProxy,
  type Servers,
  type Service,
  type ServiceKind,
  startFlakyProxy,
  startService,
} from "@lim/testkit";
import { type Findings, lastWords, textOf } from "./findings.ts";
import type { Chances } from "./random.ts";

const startAttempts = 3;
/** A service comes back to its port in this share of starts, so that both are met: a restarted and a new one. */
const samePort = 0.7;

/** A place for one service, that is killed and started again; its Postgres is behind a proxy. */
export interface Place {
  readonly name: string;
  readonly proxy: FlakyProxy;
  /** All services that ran here. */
  readonly everyone: readonly Service[];
  /** Undefined while it is being replaced. */
  service(): Service | undefined;
  start(env?: Readonly<Record<string, string>>): Promise<Service>;
  /** Takes the service out: its end is no surprise from now on. */
  leave(): Service | undefined;
  /** SIGKILL to one that left. */
  endNow(service: Service): Promise<void>;
  /** SIGTERM to one that left; judges that it ends with 0 within the limit. */
  endInOrder(service: Service, limitMs: number): Promise<void>;
  /** After the last service has left. */
  close(): Promise<void>;
}

export async function openPlace(options: {
  kind: ServiceKind;
  name: string;
  servers: Servers;
  env: Readonly<Record<string, string>>;
  nodeArgs?: readonly string[];
  chances: Chances;
  findings: Findings;
  /** It ended by itself; true where that was to be expected. */
  onSurprise?: (service: Service, ended: number | NodeJS.Signals) => boolean;
}): Promise<Place> {
  const { kind, name, servers, chances, findings } = options;
  const database = new URL(servers.postgres.url);
  const proxy = await startFlakyProxy(Number(database.port || 5432));
  database.hostname = "127.0.0.1";
  database.port = String(proxy.port);
  const everyone: Service[] = [];
  let current: Service | undefined;

  const enter = (service: Service) => {
    everyone.push(service);
    current = service;
    void service.process.exited.then((ended) => {
      if (current !== service) return;
      current = undefined;
      if (!options.onSurprise?.(service, ended))
        findings.violation(`${service.name} ended by itself with ${ended}: ${lastWords(service)}`);
    });
  };
  return {
    name,
    proxy,
    everyone,
    service: () => current,
    async start(env = {}) {
      const before = everyone.at(-1);
      let port = before && chances.hits(samePort) ? Number(new URL(before.url).port) : 0;
      for (let attempt = 1; ; attempt++)
        try {
          const service = await startService(servers, {
            kind,
            name: `${name}-${everyone.length + 1}`,
            port,
            env: { ...options.env, DATABASE_URL: database.href, ...env },
            ...(options.nodeArgs === undefined ? {} : { nodeArgs: options.nodeArgs }),
          });
          enter(service);
          return service;
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
    leave() {
      const left = current;
      current = undefined;
      return left;
    },
    async endNow(service) {
      service.process.kill("SIGKILL");
      await service.process.exited;
      await servers.ledger.forget(service.process.pid);
    },
    async endInOrder(service, limitMs) {
      service.process.kill("SIGTERM");
      const ended = await eventually(`${service.name} ends`, () => service.process.exited, {
        timeoutMs: limitMs,
      }).catch(() => undefined);
      if (ended === undefined) {
        findings.violation(`${service.name} did not end within ${limitMs} ms of SIGTERM`);
        service.process.kill("SIGKILL");
      } else if (ended !== 0)
        findings.violation(`${service.name} ended with ${ended} after SIGTERM: ${lastWords(service)}`);
      await servers.ledger.forget(service.process.pid);
    },
    async close() {
      proxy.resume();
      await proxy.close();
    },
  };
}
