import { setTimeout as sleep } from "node:timers/promises";
import { LimError, type MatchReply } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { beforeEach, expect, test } from "vitest";
import { createFindings, type Findings } from "../findings.ts";
import { judgePoison } from "./poisoning.ts";
import { marginMs, outcomeOfError, RequestJudge } from "./requests.ts";
import { type SeenIndex, type SeenKey, ServedWatch } from "./served.ts";
import { createTroubles, type Troubles } from "./trouble.ts";
import { ListTruth } from "./truth.ts";

const label = "018f6f2e-0000-4000-8000-000000000001";
const face = "018f6f2e-0000-4000-8000-00000000000a";
const indexId = "018f6f2e-0000-4000-8000-0000000000ff";
const keyTtlMs = 2_000;
let findings: Findings;
let truth: ListTruth;
let watch: ServedWatch;
let troubles: Troubles;
let judge: RequestJudge;

beforeEach(() => {
  findings = createFindings();
  truth = new ListTruth(label);
  watch = new ServedWatch({ findings, truths: new Map([[label, truth]]), keyTtlMs });
  troubles = createTroubles();
  judge = new RequestJudge({ findings, watch, troubles });
});

const serves = (revision: number): SeenIndex => ({ label, state: "serving", index_id: indexId, revision });
const key = (revision: number, rest: Partial<SeenKey> = {}): SeenKey => ({
  ...{ label, matcherId: "host:1", revision, ttlMs: 1_000 },
  ...rest,
});
const born = () => watch.prepare()("host:1", "matcher-1");
const ask = (path: string, timeoutMs = 1_000) => judge.asked(truth, { path, timeoutMs });
const answer = (revision: number) => ({ revision, indexId, matches: [], error: undefined });

test("I12: a matcher, or a key, that goes back is told; the floor of answers is what every living one served", () => {
  const life = born();
  watch.saw(life, [serves(5)]);
  watch.sawKeys([key(5)], performance.now());
  expect(watch.floor(label)).toBe(5);
  expect(findings.violations).toEqual([]);
  watch.saw(life, [serves(4)]);
  expect(findings.violations).toMatchObject([expect.stringMatching(/I12: matcher-1 serves .* revision 4/)]);
  watch.sawKeys([key(4)], performance.now());
  expect(findings.violations[1]).toMatch(/I12: the key .* says revision 4/);
  judge.settled(ask("index only"), answer(4));
  expect(findings.violations[2]).toMatch(/I12: revision 4, though nobody served less than 5/);
});

test("I12: what a process loads at its start is judged by what was committed before", () => {
  truth.begin([{ faceId: face, kind: "linked", vector: Float32Array.of(1) }]).committed(7);
  watch.saw(born(), [serves(6)]);
  expect(findings.violations).toHaveLength(1);
});

test("I8: the key of a matcher that is gone is told once its TTL is over, of one that left in order at once", () => {
  const life = born();
  watch.ended(life, false);
  watch.sawKeys([key(0)], performance.now() + keyTtlMs);
  expect(findings.violations).toEqual([]);
  watch.sawKeys([key(0)], performance.now() + keyTtlMs + 10_000);
  expect(findings.violations).toMatchObject([expect.stringMatching(/I8: key of list .* matcher is gone/)]);
  watch.ended(born(), true);
  watch.sawKeys([key(0)], performance.now() + 1);
  expect(findings.violations).toHaveLength(2);
  watch.sawKeys([key(0, { matcherId: "stranger:1" })], performance.now());
  expect(findings.violations).toHaveLength(3);
});

test("I8: what the dead had sent while Redis stood still counts from when Redis took it", async () => {
  watch.ended(born(), true);
  const laterMs = performance.now() + keyTtlMs / 2;
  watch.sawKeys([key(0)], laterMs);
  expect(findings.violations).toHaveLength(1);
  watch.redisCameBack();
  watch.sawKeys([key(0)], laterMs);
  expect(findings.violations).toHaveLength(1);
  watch.sawKeys([key(0)], laterMs + 60_000);
  expect(findings.violations).toHaveLength(2);
});

test("I8: a key that lives too long, and one without an index behind it, are told", () => {
  const life = born();
  watch.sawKeys([key(0, { ttlMs: -1 })], performance.now());
  expect(findings.violations).toMatchObject([expect.stringMatching(/I8: .* lives for -1 ms/)]);
  watch.keyWithoutService(life, [key(0)], [serves(0)], [key(0)]);
  watch.keyWithoutService(life, [key(0)], [], []);
  expect(findings.violations).toHaveLength(1);
  watch.keyWithoutService(life, [key(0)], [{ ...serves(0), revision: null }], [key(0)]);
  expect(findings.violations[1]).toMatch(/I8: matcher-1 has a key .* and cannot serve it/);
});

test("I6: a raw request without a reply is told, unless nobody was there to give one", async () => {
  const life = born();
  watch.saw(life, [serves(0)]);
  await sleep(1);
  judge.unanswered(ask("raw"));
  expect(findings.violations).toMatchObject([expect.stringMatching(/I6: a raw request .* got no reply/)]);
  const over = troubles.begin("redis");
  judge.unanswered(ask("raw"));
  over();
  judge.unanswered(ask("raw"));
  expect(findings.violations).toHaveLength(1);
  const calm = new RequestJudge({ findings, watch, troubles: createTroubles() });
  watch.pause(life);
  calm.unanswered(ask("raw"));
  expect(findings.violations).toHaveLength(1);
});

test("I6: an outcome past its deadline and the margin is told", () => {
  judge.settled(ask("index only"), answer(0));
  expect(findings.violations).toEqual([]);
  judge.settled({ ...ask("index only"), isLate: () => true }, answer(0));
  expect(findings.violations).toMatchObject([expect.stringMatching(/I6: .* was over after \d+ ms/)]);
});

test("errors without a cause, and errors that no good request may get, are told", () => {
  const fails = (error: LimError) => judge.settled(ask("index only"), outcomeOfError(error));
  fails(new LimError("request_expired", "late"));
  expect(findings.violations).toEqual([]);
  fails(new LimError("redis_unavailable", "away"));
  expect(findings.violations).toMatchObject([expect.stringMatching(/redis_unavailable without a cause/)]);
  const over = troubles.begin("redis");
  fails(new LimError("redis_unavailable", "away"));
  over();
  fails(new LimError("redis_unavailable", "away"));
  expect(findings.violations).toHaveLength(1);
  for (const name of ["internal", "dead_lettered", "index_behind", "engine_failed"] as const)
    fails(new LimError(name, "no"));
  expect(findings.violations).toHaveLength(5);
});

test("I2: an answer from a damaged index is told", () => {
  judge.damaged.add(indexId);
  judge.settled(ask("index only"), answer(0));
  expect(findings.violations).toMatchObject([expect.stringMatching(/I2: .* damaged index/)]);
});

test("I5: a wrong answer that nobody accepts is told as well", () => {
  judge.judgeAnswer(ask("raw"), { ...answer(3), matches: [[face, 1]] });
  expect(findings.violations).toMatchObject([expect.stringMatching(/I5: face .* never was in the list/)]);
});

test("I11: poison that is not quarantined, harmed innocents and the wrong number of deaths are told", () => {
  const reply = (error: LimError | null): { reply: MatchReply } => ({
    reply: {
      rid: "r",
      status_code: error?.httpStatus ?? 200,
      result: [],
      error: error?.toBody() ?? null,
      index_id: null,
      revision: null,
      timings: null,
    },
  });
  const dead = { poison: true, outcome: reply(new LimError("dead_lettered", "thrice")) };
  const well = { poison: false, outcome: reply(null) };
  expect(judgePoison([dead, well], 3)).toEqual([]);
  expect(judgePoison([{ ...dead, outcome: reply(null) }], 3)).toHaveLength(1);
  expect(judgePoison([{ ...dead, outcome: undefined }], 3)).toHaveLength(1);
  expect(
    judgePoison([dead, { ...well, outcome: dead.outcome }, { ...well, outcome: undefined }], 3),
  ).toHaveLength(2);
  expect(judgePoison([dead, well], 4)).toHaveLength(1);
});

test("I6: lateness is told by the clock of the caller's process", async () => {
  const asked = judge.asked(truth, { path: "index only", timeoutMs: 1 - marginMs.plugin });
  await eventually("it is late", () => asked.isLate() || undefined);
  expect(ask("index only", 60_000).isLate()).toBe(false);
});
