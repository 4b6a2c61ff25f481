import fc from "fast-check";
import { type CheckContext, check, type Violation } from "./checks.ts";
import { type Client, createClient, type Outcome } from "./client.ts";
import { type Coverage, createCoverage } from "./coverage.ts";
import { loadDocument } from "./document.ts";
import { createDeck, type Deck, type Drawn, type Round } from "./kinds.ts";
import type { Plan } from "./plan.ts";
import { curlOf, render, type Wire } from "./render.ts";
import { createValidators } from "./schemas.ts";
import type { World } from "./world.ts";

export interface CampaignOptions {
  seed: number;
  requests: number;
  /** The campaign stops after that many milliseconds, and says how far it came. */
  durationMs: number;
  concurrency: number;
  /** Requests that look for a smaller one of each finding (default 60). */
  shrinkRuns?: number;
  /** Called after each round. */
  onProgress?: (progress: { done: number; found: number }) => void;
}

export interface Finding {
  operation: string;
  kind: string;
  violation: Violation;
  /** Place in the sequence of the seed. */
  index: number;
  round: Round;
  curl: string;
  /** The smallest request that fast-check found with the same violation. */
  smallest: string | undefined;
  /** Requests of the campaign with this violation. */
  count: number;
}

export interface CampaignResult {
  done: number;
  elapsedMs: number;
  findings: Finding[];
  coverage: Coverage;
  /** Operations called too rarely, and what the manager did beside its answers. */
  faults: string[];
}

const limits = {
  requestTimeoutMs: 10_000,
  streamMs: 250,
  requestsOfRound: 150,
  /** Rounds in a row in which nothing may change, for each one that changes things. */
  stillRounds: 2,
  shrinkRuns: 60,
  shrinkMs: 10_000,
  /** Findings that are followed up; past it the campaign ends. */
  findings: 25,
  /** Requests asked again one by one where a round changed something. */
  blamed: 60,
} as const;

/** Least number of requests of each operation and sort, of so many in all. */
export function minimumOf(requests: number, operations: number): { accepted: number; refused: number } {
  const share = requests / (operations + 1);
  return { accepted: Math.floor(share / 8), refused: Math.floor(share / 8) };
}

interface Run {
  world: World;
  client: Client;
  deck: Deck;
  context: CheckContext;
  coverage: Coverage;
  seed: number;
  findings: Map<string, Finding & { drawn: Drawn }>;
}

/** Sends the requests of a seed at a world, and judges every answer. */
export async function runCampaign(world: World, options: CampaignOptions): Promise<CampaignResult> {
  const document = loadDocument();
  const validators = createValidators(document);
  const deck = createDeck(document, validators);
  const coverage = createCoverage(document, (id) => deck.isRefusable(id));
  const { requestTimeoutMs: timeoutMs, streamMs } = limits;
  const client = createClient({ url: world.url, maxConnections: options.concurrency, timeoutMs, streamMs });
  const context = { document, validators, secrets: world.secrets };
  const run: Run = { world, client, deck, context, coverage, seed: options.seed, findings: new Map() };
  const startMs = performance.now();
  let done = 0;
  try {
    for (let round = 0; done < options.requests; round++) {
      if (performance.now() - startMs > options.durationMs || run.findings.size >= limits.findings) break;
      if (hasEnded(world)) break;
      const size = Math.min(limits.requestsOfRound, options.requests - done);
      await world.replenish();
      await playRound(run, isStill(round) ? "still" : "moving", { first: done, size }, options.concurrency);
      done += size;
      options.onProgress?.({ done, found: run.findings.size });
    }
    await shrinkFindings(run, options.shrinkRuns ?? limits.shrinkRuns);
  } finally {
    client.close();
  }
  const minimum = minimumOf(done, document.operations.length);
  const faults = [...coverage.gaps(minimum), ...troubles(world)];
  if (done < options.requests) faults.push(`only ${done} of ${options.requests} requests were sent`);
  const findings = [...run.findings.values()].map(({ drawn: _, ...finding }) => finding);
  return { done, elapsedMs: performance.now() - startMs, findings, coverage, faults };
}

const isStill = (round: number) => round % (limits.stillRounds + 1) !== limits.stillRounds;

const hasEnded = (world: World) => world.process.lines.some((line) => /uncaught|unhandled/i.test(line));

/** Lines of the manager's log that tell of failures: whatever was asked, none may be there. */
export function troubles(world: Pick<World, "process">): string[] {
  const lines = world.process.lines.filter((line) => /"level":\s*(?:50|60|"error"|"fatal")/.test(line));
  const shown = lines.slice(0, 3).map((line) => `the manager's log has: ${line.slice(0, 600)}`);
  return lines.length > shown.length
    ? [...shown, `and ${lines.length - shown.length} more such lines`]
    : shown;
}

async function playRound(
  run: Run,
  round: Round,
  requests: { first: number; size: number },
  concurrency: number,
): Promise<void> {
  const { world } = run;
  const sent: { index: number; drawn: Drawn; wire: Wire }[] = [];
  if (round === "still") await world.hold();
  try {
    const before = round === "still" ? await world.fingerprint() : [];
    let next = requests.first;
    const end = requests.first + requests.size;
    const worker = async () => {
      while (next < end) {
        const index = next++;
        const drawn = run.deck.draw(round, run.seed, index);
        const { wire, violations } = await ask(run, drawn.plan);
        sent.push({ index, drawn, wire });
        for (const violation of violations) note(run, { index, round, drawn, wire, violation });
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    const difference = round === "still" ? await changed(world, before) : undefined;
    if (difference !== undefined) await blame(run, sent, difference);
  } finally {
    world.resume();
  }
}

async function ask(run: Run, plan: Plan, counts = true): Promise<{ wire: Wire; violations: Violation[] }> {
  const wire = render(plan, { pools: run.world.pools, token: run.world.token });
  const outcome: Outcome = await run.client.send(wire);
  const status = "answer" in outcome ? outcome.answer.status : 0;
  if (counts) run.coverage.count(plan.operation, plan.expect.outcome, status);
  if ("answer" in outcome && status < 300)
    run.world.learn(plan.operation, outcome.answer.body.toString("utf8"));
  return { wire, violations: check(plan, wire, outcome, run.context) };
}

function note(
  run: Run,
  {
    index,
    round,
    drawn,
    wire,
    violation,
  }: { index: number; round: Round; drawn: Drawn; wire: Wire; violation: Violation },
): void {
  const { operation, kind } = drawn.plan;
  const key = [operation, kind, violation.rule].join("\n");
  const known = run.findings.get(key);
  if (known) known.count++;
  else {
    const curl = curlOf(wire, run.world.token);
    run.findings.set(key, {
      operation,
      kind,
      violation,
      index,
      round,
      curl,
      smallest: undefined,
      count: 1,
      drawn,
    });
  }
}

/** What is not as it was, in a line or two. */
async function changed(world: World, before: readonly string[]): Promise<string | undefined> {
  const after = await world.fingerprint();
  if (after.join() === before.join()) return undefined;
  const gone = before.filter((line) => !after.includes(line));
  const come = after.filter((line) => !before.includes(line));
  return `gone: ${gone.slice(0, 3).join(", ") || "nothing"}; new: ${come.slice(0, 3).join(", ") || "nothing"}`;
}

/** Asks those that might have done it once more, one by one. */
async function blame(
  run: Run,
  sent: readonly { index: number; drawn: Drawn; wire: Wire }[],
  difference: string,
): Promise<void> {
  const writes = (method: string) => method !== "GET" && method !== "HEAD";
  const suspects = sent.filter(({ wire }) => writes(wire.method));
  for (const { index, drawn } of [...suspects, ...sent].slice(0, limits.blamed)) {
    await run.world.hold();
    const before = await run.world.fingerprint();
    const { wire } = await ask(run, drawn.plan, false);
    const detail = await changed(run.world, before);
    if (detail !== undefined)
      return note(run, {
        index,
        round: "still",
        drawn,
        wire,
        violation: { rule: "changed something", detail },
      });
  }
  const [first] = sent;
  const detail = `in the round of ${sent.length} requests from ${first?.index}, none of which did it again: ${difference}`;
  if (first) note(run, { ...first, round: "still", violation: { rule: "changed something", detail } });
}

async function shrinkFindings(run: Run, mostRuns: number): Promise<void> {
  for (const finding of run.findings.values()) {
    if (finding.violation.rule === "changed something" || finding.violation.rule === "no answer") continue;
    let smallest: string | undefined;
    let runs = 0;
    const stillBroken = async (plan: Plan): Promise<boolean> => {
      if (++runs > mostRuns) return true;
      const { wire, violations } = await ask(run, plan, false);
      if (!violations.some(({ rule }) => rule === finding.violation.rule)) return true;
      smallest = curlOf(wire, run.world.token);
      return false;
    };
    const { plans, seed } = finding.drawn;
    await fc.check(fc.asyncProperty(plans, stillBroken), {
      seed,
      numRuns: 1,
      interruptAfterTimeLimit: limits.shrinkMs,
    });
    finding.smallest = smallest;
  }
}

/** For people: what was found, each with the request that shows it. */
export function reportOf(result: CampaignResult, seed: number): string {
  const perSecond = Math.round(result.done / (result.elapsedMs / 1_000));
  const lines = [
    result.coverage.table(),
    "",
    `seed ${seed}: ${result.done} requests in ${(result.elapsedMs / 1_000).toFixed(1)} s (${perSecond}/s), ${result.findings.length} violations, ${result.faults.length} other faults`,
  ];
  for (const { operation, kind, violation, index, count, curl, smallest } of result.findings)
    lines.push(
      "",
      `${violation.rule}: ${operation}, ${kind} (seed ${seed}, request ${index}, ${count} times)`,
      `  ${violation.detail}`,
      `  ${curl}`,
      ...(smallest === undefined || smallest === curl ? [] : [`  smaller: ${smallest}`]),
    );
  for (const fault of result.faults) lines.push("", fault);
  return lines.join("\n");
}
