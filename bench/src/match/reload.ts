// Part "reload": one matcher whose index is replaced again and again while requests come at a rate.
import { setTimeout as sleep } from "node:timers/promises";
import { defaults } from "@lim/contracts";
import { openIndexStorage } from "@lim/index-storage";
import { memoryOf } from "../build/descendants.ts";
import type { BenchList } from "../build/lists.ts";
import type { EngineProcess } from "../engine/rpc.ts";
import type { CallerOperations, OpenFigures } from "./caller-child.ts";
import type { IndexPlace } from "./index-child.ts";
import { publishCopy, publishIndex } from "./indexes.ts";
import { type RunningMatcher, withMatcher } from "./matcher.ts";
import { goalsOf, summaryOf, tablesOf } from "./reload-figures.ts";
import { type PartResult, type Run, withChild } from "./run.ts";

/** How often the matcher looks at the storage: reloads follow one another with as much between them. */
const reloadPeriodMs = 100;
/** Stretches with reloads, each followed by one without. */
const stretches = 4;
const saturatingCallers = 64;
const settleMs = 1_000;
const maxQuietSeconds = 15;

export interface Reload {
  /** From the publication until the matcher answers from the new index. */
  seconds: number;
  /** Resident memory of the matcher then; undefined where the system does not tell. */
  residentBytes: number | undefined;
}

export interface Stretch {
  reloads: Reload[];
  seconds: number;
  during: OpenFigures;
  without: OpenFigures;
}

interface Reloading {
  run: Run;
  matcher: RunningMatcher;
  list: BenchList;
  callers: EngineProcess<CallerOperations>;
  perS: number;
  /** The newest index; each next one is made of its files. */
  newest: IndexPlace;
}

export async function measureReload(run: Run): Promise<PartResult> {
  const { options, lists, redisUrl, queriesPath, say } = run;
  const { dim, limit, reloads, reloadLoad, seconds } = options;
  const list = lists.reload;
  if (!list) throw new Error("no list");
  const root = `${run.dir}/indexes-reload`;
  const newest = await publishIndex(run, { engine: defaults.engine, root, list });
  const env = { LIM_RELOAD_PERIOD_MS: String(reloadPeriodMs), LIM_LOG_LEVEL: "info" };
  const measured = await withMatcher(run, root, { env }, (matcher) =>
    withChild<CallerOperations, { perS: number; stretches: Stretch[] }>(
      run,
      "caller-child",
      "callers",
      async (callers) => {
        const label = list.listId;
        await callers.call("connect", { kind: "plugin", redisUrl, label, limit, dim, queriesPath });
        const saturate = { callers: saturatingCallers, durationMs: seconds * 1000 };
        await callers.call("call", saturate);
        const saturated = await callers.call("call", saturate);
        const perS = saturated.answeredPerS * reloadLoad;
        const reloading: Reloading = { run, matcher, list, callers, perS, newest };
        const done: Stretch[] = [];
        for (let i = 0; i < stretches; i++) {
          const until = Math.round((reloads * (i + 1)) / stretches);
          const count = until - Math.round((reloads * i) / stretches);
          done.push(await measureStretch(reloading, { count, seed: i }));
          say(`${until} of ${reloads} reloads`);
        }
        return { perS, stretches: done };
      },
    ),
  );
  const where = `${defaults.engine}, ${list.faces.toLocaleString("en-US")} faces`;
  const summary = summaryOf(measured.stretches);
  return {
    figures: { engine: defaults.engine, faces: list.faces, ...measured, summary },
    tables: tablesOf(where, measured.perS, summary),
    goals: goalsOf(where, summary),
  };
}

async function measureStretch(
  reloading: Reloading,
  { count, seed }: { count: number; seed: number },
): Promise<Stretch> {
  const { callers, perS } = reloading;
  const { signal } = reloading.run;
  const load = { perS, seed };
  await callers.call("begin", load);
  const startedMs = performance.now();
  const reloads: Reload[] = [];
  while (reloads.length < count) reloads.push(await reloadOnce(reloading));
  const seconds = (performance.now() - startedMs) / 1000;
  const during = await callers.call("end", undefined as never);
  await sleep(settleMs, undefined, { signal });
  await callers.call("begin", load);
  await sleep(Math.min(seconds, maxQuietSeconds) * 1000, undefined, { signal });
  const without = await callers.call("end", undefined as never);
  return { reloads, seconds, during, without };
}

async function reloadOnce(reloading: Reloading): Promise<Reload> {
  const { run, matcher, list, newest } = reloading;
  const { limitMs } = run.options;
  const next = await publishCopy(run, newest, { list, files: "link" });
  const publishedMs = performance.now();
  // The index that it was before is named in the same line.
  const replaced = new RegExp(`"index_id":"${next.indexId}".*index replaced`);
  await matcher.process.waitForLine(replaced, { timeoutMs: limitMs });
  const seconds = (performance.now() - publishedMs) / 1000;
  const residentBytes = memoryOf(matcher.process.pid)?.residentBytes;
  const storage = await openIndexStorage({ root: newest.root });
  await storage.remove({ indexId: newest.indexId });
  reloading.newest = next;
  return { seconds, residentBytes };
}
