import { setTimeout as sleep } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import { alive, type DemoContext, labelOf } from "./context.ts";
import { quantile, startLoad } from "./load.ts";
import type { DemoFace } from "./source.ts";

const unlinkCount = 5;
const loadCallers = 8;
const changeLimitMs = 20_000;
/** A change counts once this many answers in a row show it: two matchers refresh on their own. */
const answersInARow = 4;
const askEveryMs = 5;
const foundSimilarity = 0.999;

/** Links newcomers and unlinks members while matches run: each is found or gone, and no match fails. */
export async function checkRefresh(context: DemoContext, descriptorVersion: number): Promise<void> {
  const { source, report, db, signal } = context;
  const label = labelOf(context, source.large);
  const members = source.large.faces.slice(-unlinkCount);
  const load = startLoad({
    plugin: context.indexOnly,
    label,
    probes: source.probesOf(source.large, 200),
    callers: loadCallers,
  });
  const marks = alive(context, "indexed-matcher").map((matcher) => ({
    matcher,
    from: matcher.process.lines.length,
  }));
  try {
    const changedMs = performance.now();
    await Promise.all([
      db.putFaces({ listIds: [label], descriptorVersion, faces: source.newcomers, signal }),
      db.unlinkFaces({ listId: label, faceIds: members.map((face) => face.faceId), signal }),
    ]);
    const waits = await Promise.all([
      ...source.newcomers.map((face) => untilSeen(context, label, face, true, changedMs)),
      ...members.map((face) => untilSeen(context, label, face, false, changedMs)),
    ]);
    const linked = waits.slice(0, source.newcomers.length);
    const unlinked = waits.slice(source.newcomers.length);
    report.figure("refresh_findable_p99_ms", quantile(linked, 0.99));
    report.check(
      "linked faces are found and unlinked ones are gone",
      true,
      `${linked.length} found after ${quantile(linked, 0.5).toFixed(0)} ms (p50), ${quantile(linked, 0.99).toFixed(0)} ms (p99); ` +
        `${unlinked.length} gone after at most ${Math.max(...unlinked).toFixed(0)} ms`,
    );
  } finally {
    const result = await load.stop();
    report.addFailedMatches(result.failed);
    report.check(
      "no match fails while faces change",
      result.failed === 0 && result.sent > 0,
      `${result.sent} matches, ${result.failed} failed ${result.failures[0] ?? ""}`.trimEnd(),
    );
  }
  await checkLogLines(context, label, marks);
}

async function untilSeen(
  context: DemoContext,
  label: string,
  face: DemoFace,
  wanted: boolean,
  changedMs: number,
): Promise<number> {
  let inARow = 0;
  let firstMs = 0;
  while (inARow < answersInARow) {
    context.signal.throwIfAborted();
    if (performance.now() - changedMs > changeLimitMs)
      throw new LimError(
        "timeout",
        `${face.faceId} was not ${wanted ? "found" : "gone"} within ${changeLimitMs / 1000} s`,
      );
    const [answer] = await context.indexOnly.match({
      label,
      references: [{ descriptor: face.vector }],
      limit: 1,
      signal: context.signal,
    });
    const [faceId, similarity] = answer?.matches[0] ?? ["", 0];
    const seen = faceId === face.faceId && similarity > foundSimilarity;
    if (seen === wanted) {
      if (inARow++ === 0) firstMs = performance.now() - changedMs;
    } else {
      inARow = 0;
      await sleep(askEveryMs, undefined, { signal: context.signal });
    }
  }
  return firstMs;
}

/** The packets as the matchers' logs tell them: every matcher's, also of one that no answer above came from. */
async function checkLogLines(
  context: DemoContext,
  label: string,
  marks: readonly { matcher: { name: string; process: { lines: readonly string[] } }; from: number }[],
): Promise<void> {
  const deadlineMs = performance.now() + changeLimitMs;
  for (const { matcher, from } of marks) {
    const fresh = () => matcher.process.lines.slice(from);
    const isWhole = () =>
      fresh().some((line) => line.includes(`Refresh index for: ${label} has finished successfully`));
    while (!isWhole() && performance.now() < deadlineMs)
      await sleep(askEveryMs, undefined, { signal: context.signal });
    const packets = fresh().flatMap((line) => /Sync: \d+->\d+, \d+->\d+/.exec(line)?.[0] ?? []);
    context.report.check(
      `${matcher.name} logs its packets`,
      isWhole() && packets.length > 0,
      packets.slice(0, 8).join(" · ") || "no packet",
    );
  }
}
