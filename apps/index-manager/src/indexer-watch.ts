import type { IndexerState, Task } from "@lim/contracts";
import type { IndexerRegistry } from "@lim/coordination";
import { mapBounded, pause } from "./concurrency.ts";
import type { IndexerClient } from "./indexer-client.ts";
import { managerLimits } from "./limits.ts";
import type { ObservedIndexer } from "./reconcile.ts";

export interface IndexerSources {
  registry: IndexerRegistry;
  client: IndexerClient;
  staticOrigins: readonly string[];
}

/** Origins that register or are in the settings (`known`), and those that a running task names. */
export async function originsToAsk(
  deps: Pick<IndexerSources, "registry" | "staticOrigins">,
  indexing: readonly Task[],
  signal: AbortSignal,
): Promise<{ origins: string[]; known: ReadonlySet<string> }> {
  const known = new Set([...(await deps.registry.origins({ signal })), ...deps.staticOrigins]);
  const named = indexing.flatMap((task) => (task.indexer ? [task.indexer] : []));
  return { origins: [...new Set([...known, ...named])].toSorted(), known };
}

/** Asks every indexer once and waits for all, `stateTimeoutMs` at most for each: for who needs whole answers. */
export async function observeIndexers(
  deps: IndexerSources,
  indexing: readonly Task[],
  signal: AbortSignal,
): Promise<{ origin: string; known: boolean; state: IndexerState | undefined }[]> {
  const { origins, known } = await originsToAsk(deps, indexing, signal);
  return mapBounded(origins, managerLimits.parallelIndexerCalls, async (origin) => ({
    origin,
    known: known.has(origin),
    state: await deps.client.state(origin, signal),
  }));
}

export type Seen = Pick<ObservedIndexer, "origin" | "state" | "late" | "bootId">;

/**
 * Asks indexers for their state without ever waiting for a slow one. At most one question is open at an origin, and
 * none while a command to it is.
 *
 * An answer that comes too late for its lookup is kept for the next one, which then asks nothing. It cannot mislead:
 * - Nothing was told to that indexer since it was asked: while its question was open it was late, and who is late is
 *   neither dispatched to nor stopped; and while a command is open no question is.
 * - By another name of it something may have been told. So of several answers of one boot the one asked last counts for
 *   all names, and an indexer that has a task by one name is held by all.
 * - Records are read after the answers, so they are the newer ones, and they change by this master alone (the epoch),
 *   but for removals, which leave a mark. "Building" of a build that has ended since is followed for one lookup more;
 *   "idle" of an indexer that drains or has restarted since leads to a dispatch that is refused or taken.
 * - A replaced master may hold the oldest of answers: the store refuses all that it makes of them.
 */
export interface IndexerWatch {
  /** In the order given. Waits `lookupWaitMs` at most. */
  look(origins: readonly string[]): Promise<Seen[]>;
  /** Carries out a command to an origin, which counts as late until it has settled. `send` must not reject. */
  command(origin: string, send: () => Promise<void>): void;
}

/** What is known of one origin. */
interface Line {
  /** Questions and commands on their way. */
  open: number;
  askedMs: number;
  /** Not yet told to a lookup; state undefined where the question failed. */
  result: { state: IndexerState | undefined } | undefined;
  bootId: string | undefined;
}

export function createIndexerWatch(client: Pick<IndexerClient, "state">, signal: AbortSignal): IndexerWatch {
  const lines = new Map<string, Line>();
  const lineOf = (origin: string): Line => {
    const line = lines.get(origin) ?? {
      open: 0,
      askedMs: Number.NEGATIVE_INFINITY,
      result: undefined,
      bootId: undefined,
    };
    lines.set(origin, line);
    return line;
  };
  const ask = async (origin: string, line: Line) => {
    line.open++;
    line.askedMs = performance.now();
    // A rejection is the end of the leadership: its lookups are over, and nobody reads this.
    const state = await client.state(origin, signal).catch(() => undefined);
    line.result = { state };
    line.bootId = state?.boot_id ?? line.bootId;
    line.open--;
  };
  return {
    async look(origins) {
      const named = new Set(origins);
      for (const [origin, { open }] of lines) if (open === 0 && !named.has(origin)) lines.delete(origin);
      await settledOrLate(
        toAsk(
          origins.map((origin) => [origin, lineOf(origin)] as const),
          lines,
        ).map(([origin, line]) => ask(origin, line)),
        signal,
      );
      return tell(origins.map((origin) => [origin, lineOf(origin)] as const));
    },
    command(origin, send) {
      const line = lineOf(origin);
      line.open++;
      void send().finally(() => {
        line.open--;
      });
    },
  };
}

/** Those without an open question or an untold answer; who was asked longest ago comes first where not all can be. */
function toAsk(
  candidates: readonly (readonly [string, Line])[],
  lines: ReadonlyMap<string, Line>,
): (readonly [string, Line])[] {
  const open = [...lines.values()].filter((line) => line.open > 0).length;
  return candidates
    .filter(([, line]) => line.open === 0 && !line.result)
    .toSorted(([, a], [, b]) => a.askedMs - b.askedMs)
    .slice(0, Math.max(0, managerLimits.maxOpenQuestions - open));
}

async function settledOrLate(questions: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
  const settled = new AbortController();
  const wait = pause(managerLimits.lookupWaitMs, AbortSignal.any([signal, settled.signal]));
  await Promise.race([Promise.all(questions), wait]);
  settled.abort();
}

/** Takes the untold answers. Of one boot, the answer that was asked for last is given for all its names. */
function tell(asked: readonly (readonly [string, Line])[]): Seen[] {
  const freshest = new Map<string, { state: IndexerState; askedMs: number }>();
  for (const [, { result, askedMs }] of asked) {
    if (!result?.state) continue;
    const rival = freshest.get(result.state.boot_id);
    if (!rival || rival.askedMs < askedMs)
      freshest.set(result.state.boot_id, { state: result.state, askedMs });
  }
  return asked.map(([origin, line]) => {
    const { result, bootId } = line;
    if (line.open > 0 || !result) return { origin, state: undefined, late: true, bootId };
    line.result = undefined;
    const state = result.state && freshest.get(result.state.boot_id)?.state;
    return { origin, state, late: false, bootId };
  });
}
