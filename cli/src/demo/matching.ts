import { setTimeout as sleep } from "node:timers/promises";
import { defaults } from "@lim/contracts";
import { openIndexStorage } from "@lim/index-storage";
import type { MatchAnswer } from "@lim/search-plugin";
import { formatRate } from "../output.ts";
import { type DemoContext, exactMatches, labelOf, oracleOf } from "./context.ts";
import { perSecond, quantile, startLoad } from "./load.ts";
import type { Probe } from "./source.ts";

const probeCount = 500;
const recallGoal = 0.98;
const recallLimit = 10;
const measureMs = 4_000;
const throughputCallers = 64;
const latencyCallers = 8;
/** Share of rank-1 answers by which the index may fall short of exact search. */
const rankTolerance = 0.001;
const smallListCallers = 32;

/** Recall and rank-1 over the streams against exact search; then throughput and latency beside the bare engine's. */
export async function checkMatching(context: DemoContext): Promise<void> {
  const { source, report, signal } = context;
  const label = labelOf(context, source.large);
  const probes = source.probesOf(source.large, probeCount);
  const oracle = oracleOf(source, source.large);
  const truth = await exactMatches(oracle, probes, recallLimit, signal).finally(() => oracle.close());
  const answers: (MatchAnswer | undefined)[] = [];
  for (let from = 0; from < probes.length; from += 50)
    answers.push(
      ...(await context.indexOnly.match({
        label,
        references: probes.slice(from, from + 50).map(({ vector }) => ({ descriptor: vector })),
        limit: recallLimit,
        signal,
      })),
    );
  let found = 0;
  let wanted = 0;
  let rankOne = 0;
  let exactRankOne = 0;
  for (const [row, probe] of probes.entries()) {
    const exact = truth[row] ?? [];
    const got = new Set(answers[row]?.matches.map(([faceId]) => faceId));
    wanted += exact.length;
    found += exact.filter(([faceId]) => got.has(faceId)).length;
    rankOne += probe.mates.has(answers[row]?.matches[0]?.[0] ?? "") ? 1 : 0;
    exactRankOne += probe.mates.has(exact[0]?.[0] ?? "") ? 1 : 0;
  }
  const recall = found / wanted;
  report.figure("recall_at_10", recall);
  report.check(
    "matches over the streams find what exact search finds",
    recall >= recallGoal && answers.every((answer) => answer?.path === "index"),
    `recall@10 ${recall.toFixed(4)} of ${probes.length} probes (goal ${recallGoal})`,
  );
  const share = (count: number) => ((100 * count) / probes.length).toFixed(2);
  report.check(
    "known people are found at rank 1",
    rankOne >= exactRankOne - probes.length * rankTolerance,
    `${share(rankOne)} % through the index, ${share(exactRankOne)} % by exact search`,
  );
  await measureSpeed(context, label, probes);
}

async function measureSpeed(context: DemoContext, label: string, probes: readonly Probe[]): Promise<void> {
  const { report } = context;
  const run = async (callers: number) => {
    const load = startLoad({ plugin: context.indexOnly, label, probes, callers });
    await sleep(measureMs, undefined, { signal: context.signal }).catch(() => undefined);
    const result = await load.stop();
    report.addFailedMatches(result.failed);
    return result;
  };
  const busy = await run(throughputCallers);
  const calm = await run(latencyCallers);
  const bare = await measureBareSearch(context, label, probes);
  const p50 = quantile(calm.latenciesMs, 0.5);
  const p99 = quantile(calm.latenciesMs, 0.99);
  report.figure("match_rps", perSecond(busy));
  report.figure("match_rps_bare", bare);
  report.figure("match_p50_ms", p50);
  report.figure("match_p99_ms", p99);
  report.check(
    "no match fails under load",
    busy.failed + calm.failed === 0,
    `${formatRate(perSecond(busy))} requests/s from ${throughputCallers} callers (the bare engine: ${formatRate(bare)}); ` +
      `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms from ${latencyCallers} callers` +
      ((busy.failures[0] ?? calm.failures[0]) ? `; ${busy.failures[0] ?? calm.failures[0]}` : ""),
  );
}

/** The same published index, opened here and searched by batches without anything in between. */
async function measureBareSearch(
  context: DemoContext,
  label: string,
  probes: readonly Probe[],
): Promise<number> {
  const storage = await openIndexStorage({ root: context.storageRoot });
  const indexId = context.indexOnly.labels().find((served) => served.label === label)?.indexId ?? "";
  const { keyed } = await storage.open({ label, indexId, signal: context.signal });
  try {
    const batch = Math.min(throughputCallers, probes.length);
    const queries = new Float32Array(batch * context.source.dim);
    for (let row = 0; row < batch; row++) queries.set(probes[row]?.vector ?? [], row * context.source.dim);
    let searched = 0;
    const startedMs = performance.now();
    while (performance.now() - startedMs < measureMs / 2) {
      context.signal.throwIfAborted();
      await keyed.search(queries, { limit: recallLimit, ef: defaults.efSearch });
      searched += batch;
    }
    return searched / ((performance.now() - startedMs) / 1000);
  } finally {
    await keyed.close();
  }
}

/** The list without an index: many callers at once, answered exactly, and the answer says so. */
export async function checkExactSearch(context: DemoContext): Promise<void> {
  const { source, signal } = context;
  const label = labelOf(context, source.small);
  const probes = source.probesOf(source.small, smallListCallers);
  const oracle = oracleOf(source, source.small);
  const truth = await exactMatches(oracle, probes, recallLimit, signal).finally(() => oracle.close());
  const startedMs = performance.now();
  const settled = await Promise.allSettled(
    probes.map(({ vector }) =>
      context.plugin.match({ label, references: [{ descriptor: vector }], limit: recallLimit, signal }),
    ),
  );
  const elapsedMs = performance.now() - startedMs;
  let failed = 0;
  let exactPath = 0;
  let equal = 0;
  for (const [row, outcome] of settled.entries()) {
    const answer = outcome.status === "fulfilled" ? outcome.value[0] : undefined;
    if (answer === undefined) failed++;
    if (answer?.path === "exact") exactPath++;
    const wanted = truth[row]?.map(([faceId]) => faceId).join() ?? "";
    if (wanted !== "" && answer?.matches.map(([faceId]) => faceId).join() === wanted) equal++;
  }
  context.report.addFailedMatches(failed);
  context.report.check(
    "the small list is answered exactly",
    failed === 0 && exactPath === probes.length && equal === probes.length,
    `${probes.length} callers at once in ${elapsedMs.toFixed(0)} ms, first load included; ` +
      `${exactPath} on the exact path, ${equal} equal to the truth, ${failed} failed`,
  );
}
