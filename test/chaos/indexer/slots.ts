import { type IndexerState, indexerStateSchema } from "@lim/contracts";
import { eventually, type FlakyProxy, type Servers, type Service } from "@lim/testkit";
import { type Findings, textOf } from "../findings.ts";
import { openPlace } from "../place.ts";
import { childrenOf, isAlive, type SeenProcess } from "../processes.ts";
import type { Chances } from "../random.ts";

/** A build's processes are gone this long after their service at the latest; what was stopped counts from its awakening. */
const orphanLimitMs = 20_000;
const stateTimeoutMs = 1_000;
const drainMs = { least: 0, most: 3_000 } as const;
/** Above the drain: cancelling, reporting the outcome, closing connections, and a machine that is busy. */
const exitSlackMs = 40_000;

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
  const { name, chances, findings } = options;
  const place = await openPlace({ kind: "indexer", ...options });
  let drainTimeoutMs = 0;
  const slot: Slot = {
    name,
    proxy: place.proxy,
    everyone: place.everyone,
    service: place.service,
    state: async () => {
      const service = place.service();
      return service ? stateOf(service) : undefined;
    },
    children: async () => {
      const service = place.service();
      return service ? childrenOf(service.process.pid) : [];
    },
    async start() {
      drainTimeoutMs = Math.round(chances.between(drainMs.least, drainMs.most));
      await place.start({ LIM_DRAIN_TIMEOUT_MS: String(drainTimeoutMs) });
    },
    async kill() {
      const service = place.leave();
      if (!service) return [];
      const children = await childrenOf(service.process.pid);
      await place.endNow(service);
      return children;
    },
    async drain() {
      const service = place.leave();
      if (!service) return;
      const children = await childrenOf(service.process.pid);
      await place.endInOrder(service, drainTimeoutMs + exitSlackMs);
      await slot.watchOrphans(children);
    },
    watchOrphans: (orphans) => judgeOrphans(name, orphans, findings),
    async close() {
      place.proxy.resume();
      place.service()?.process.kill("SIGCONT");
      await slot.drain();
      await place.close();
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
