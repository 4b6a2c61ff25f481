import { setTimeout as sleep } from "node:timers/promises";
import { isLimError, LimError } from "@lim/contracts";
import type { SearchPlugin } from "@lim/search-plugin";
import { chanceVector } from "../feeder.ts";
import type { Findings } from "../findings.ts";
import type { Chances } from "../random.ts";
import { descriptorOf, errorOf, type RawCaller, type RawRequest } from "./raw.ts";
import { type Asked, outcomeOfError, type RequestJudge } from "./requests.ts";
import type { ListTruth } from "./truth.ts";

const pauseMs = { least: 5, most: 60 } as const;
const timeoutsMs = { least: 1_000, most: 7_000 } as const;
/** Of a burst, so that each may wait for all the others. */
const burstTimeoutMs = 20_000;
const largeLimit = 200;

export interface CallerDeps {
  truths: ReadonlyMap<string, ListTruth>;
  judge: RequestJudge;
  findings: Findings;
  dim: number;
  descriptorVersion: number;
}

/** Asks one request after another through the plugin until the signal fires. */
export async function callPlugin(
  deps: CallerDeps & { plugin: SearchPlugin; path: string; chances: Chances; signal: AbortSignal },
): Promise<void> {
  const { chances, signal } = deps;
  while (!signal.aborted) {
    const truth = chances.pick([...deps.truths.values()]);
    if (truth) await matchOnce({ ...deps, truth });
    await rest(chances, signal);
  }
}

export async function matchOnce(
  deps: Omit<CallerDeps, "truths"> & {
    plugin: SearchPlugin;
    path: string;
    chances: Chances;
    truth: ListTruth;
    timeoutMs?: number;
  },
): Promise<void> {
  const { judge, truth, plugin, path } = deps;
  const query = drawQuery(deps, truth);
  const timeoutMs = deps.timeoutMs ?? query.timeoutMs;
  const asked = judge.asked(truth, { path, ...query, timeoutMs });
  const committed = truth.revision;
  try {
    const [answer] = await plugin.match({
      label: truth.listId,
      references: [{ descriptor: query.vector }],
      limit: query.limit,
      timeoutMs,
      ...(query.minRevision === undefined ? {} : { minRevision: query.minRevision }),
    });
    if (!answer) throw new LimError("internal", "the plugin gave no answer");
    // The exact path searches the list as of the call or later.
    const own: Asked =
      answer.path === "exact" ? { ...asked, floor: Math.max(asked.floor, committed) } : asked;
    judge.settled(own, { ...answer, error: undefined });
  } catch (thrown) {
    judge.settled(asked, outcomeOfError(thrown));
  }
}

/** The same by the book of the protocol, now and then malformed. */
export async function callRaw(
  deps: CallerDeps & { raw: RawCaller; chances: Chances; signal: AbortSignal },
): Promise<void> {
  const { chances, signal } = deps;
  while (!signal.aborted) {
    const truth = chances.pick([...deps.truths.values()]);
    if (truth) await (chances.hits(0.05) ? askWrongly : askOnce)({ ...deps, truth });
    await rest(chances, signal);
  }
}

type RawDeps = CallerDeps & { raw: RawCaller; chances: Chances; truth: ListTruth };

async function askOnce(deps: RawDeps): Promise<void> {
  await askTogether(deps, 1);
}

/** `count` requests in one write; of a burst each has much time. */
export async function askTogether(deps: RawDeps, count: number): Promise<void> {
  const { judge, raw, truth, descriptorVersion } = deps;
  const drawn = Array.from({ length: count }, () => {
    const query = drawQuery(deps, truth);
    const timeoutMs = count > 1 ? burstTimeoutMs : query.timeoutMs;
    const request: RawRequest = {
      label: truth.listId,
      timeoutMs,
      limit: query.limit,
      minRevision: query.minRevision,
      descriptor: descriptorOf(query.vector, descriptorVersion),
    };
    return { request, asked: judge.asked(truth, { path: "raw", ...query, timeoutMs }) };
  });
  // In parallel to the others of a burst: each is judged the moment that it comes.
  await Promise.all(
    raw.ask(drawn.map(({ request }) => request)).map(async (outcome, at) => {
      const asked = drawn[at]?.asked;
      if (asked) judgeRaw(judge, asked, await outcome);
    }),
  );
}

function judgeRaw(
  judge: RequestJudge,
  asked: Asked,
  outcome: Awaited<ReturnType<RawCaller["ask"]>[number]>,
): void {
  if (outcome === undefined) judge.unanswered(asked);
  else if ("unsent" in outcome)
    judge.settled(asked, outcomeOfError(new LimError("redis_unavailable", outcome.unsent)));
  else {
    const { result, revision, index_id: indexId } = outcome.reply;
    judge.settled(asked, { matches: result, revision, indexId, error: errorOf(outcome.reply) });
  }
}

/** I11: what is malformed gets its error, and harms nobody. */
async function askWrongly({
  judge,
  raw,
  truth,
  chances,
  findings,
  dim,
  descriptorVersion,
}: RawDeps): Promise<void> {
  const wrong = chances.pick([
    Buffer.from("not a descriptor"),
    descriptorOf(new Float32Array(dim), descriptorVersion),
    descriptorOf(chanceVector(chances, dim / 2), descriptorVersion),
    descriptorOf(chanceVector(chances, dim), descriptorVersion + 1),
  ]) as Buffer;
  const timeoutMs = timeoutsMs.most;
  const asked = judge.asked(truth, { path: "raw", timeoutMs });
  const [outcome] = await Promise.all(
    raw.ask([{ label: truth.listId, timeoutMs, limit: 5, descriptor: wrong }]),
  );
  if (outcome === undefined || "unsent" in outcome) return judgeRaw(judge, asked, outcome);
  const error = errorOf(outcome.reply);
  const isTold = isLimError(error, "bad_match_request") || isLimError(error, "descriptor_version_mismatch");
  if (isTold) findings.count("answers, raw", "malformed, told so");
  else if (error) judge.settled(asked, { matches: [], revision: null, indexId: null, error });
  else findings.violation(`I11: a malformed request to list ${truth.listId} was answered with matches`);
}

interface DrawnQuery {
  vector: Float32Array;
  probe: { faceId: string; vector: Float32Array } | undefined;
  limit: number;
  minRevision: number | undefined;
  timeoutMs: number;
}

function drawQuery({ chances, dim }: { chances: Chances; dim: number }, truth: ListTruth): DrawnQuery {
  const faceId = chances.hits(0.85) ? truth.linkedAt(chances.whole(Math.max(1, truth.faceCount))) : undefined;
  const own = faceId === undefined ? undefined : truth.vectorOf(faceId);
  const probe = faceId !== undefined && own ? { faceId, vector: own } : undefined;
  return {
    probe,
    vector: probe?.vector ?? chanceVector(chances, dim),
    limit: chances.hits(0.1) ? largeLimit : 1 + chances.whole(10),
    minRevision: chances.hits(0.25) ? truth.revision : undefined,
    timeoutMs: Math.round(chances.between(timeoutsMs.least, timeoutsMs.most)),
  };
}

async function rest(chances: Chances, signal: AbortSignal): Promise<void> {
  await sleep(chances.between(pauseMs.least, pauseMs.most), undefined, { signal }).catch(() => {});
}
