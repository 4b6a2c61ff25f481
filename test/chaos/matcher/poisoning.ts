import { isLimError, LimError, limits, type MatchReply } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import type { Redis } from "ioredis";
import { chanceVector } from "../feeder.ts";
import type { Findings } from "../findings.ts";
import type { Chances } from "../random.ts";
import type { Fleet } from "./fleet.ts";
import { poisonVector } from "./poison.ts";
import { descriptorOf, errorOf, type RawCaller } from "./raw.ts";
import type { ListTruth } from "./truth.ts";

const innocentsPerPoison = { least: 4, most: 20 } as const;
const rest = { timeoutMs: 30_000, intervalMs: 100 } as const;

export interface PoisonDeps {
  fleet: Pick<Fleet, "expectPoison" | "untilWhole" | "poisoned">;
  raw: Redis;
  callers: readonly RawCaller[];
  truths: ReadonlyMap<string, ListTruth>;
  findings: Findings;
  chances: Chances;
  dim: number;
  descriptorVersion: number;
}

type Told = { poison: boolean; outcome: { reply: MatchReply } | { unsent: string } | undefined };

/** A request that kills whoever searches for it, among innocents of the same write, so that they share its batch. */
export async function poison(deps: PoisonDeps): Promise<void> {
  const { fleet, callers, truths, findings, chances, dim, descriptorVersion, raw } = deps;
  const caller = chances.pick(callers);
  const label = chances.pick([...truths.keys()]);
  if (!caller || label === undefined) return;
  const innocents = Math.round(chances.between(innocentsPerPoison.least, innocentsPerPoison.most));
  const place = chances.whole(innocents + 1);
  const vectors = Array.from({ length: innocents + 1 }, (_, at) =>
    at === place ? poisonVector(dim) : chanceVector(chances, dim),
  );
  const deathsBefore = fleet.poisoned;
  fleet.expectPoison(true);
  try {
    const outcomes = await Promise.all(
      caller.ask(
        vectors.map((vector) => ({
          label,
          timeoutMs: limits.maxMatchTimeoutMs,
          limit: 5,
          descriptor: descriptorOf(vector, descriptorVersion),
        })),
      ),
    );
    const told = outcomes.map((outcome, at) => ({ poison: at === place, outcome }));
    for (const fault of judgePoison(told, fleet.poisoned - deathsBefore))
      findings.violation(`${fault} (list ${label})`);
    await eventually(
      "the dead letters hold the poison",
      async () => ((await raw.xlen("lim:dead_letters")) > 0 ? true : undefined),
      rest,
    );
    findings.count("poison", "quarantined");
    findings.count("poison", "innocents of its write", innocents);
  } finally {
    await fleet.untilWhole();
    fleet.expectPoison(false);
  }
}

/** What is wrong with what became of a poison request and its neighbours, and with how many matchers died of it. */
export function judgePoison(told: readonly Told[], deaths: number): string[] {
  const faults: string[] = [];
  for (const { poison: isPoison, outcome } of told) {
    const error =
      outcome === undefined
        ? new LimError("timeout", "no reply")
        : "unsent" in outcome
          ? new LimError("redis_unavailable", outcome.unsent)
          : errorOf(outcome.reply);
    const text = error?.message ?? "matches";
    if (isPoison && !isLimError(error, "dead_lettered"))
      faults.push(`poison: its caller was told ${text}, not that it is a dead letter`);
    if (!isPoison && error) faults.push(`poison: an innocent of its batch got ${text}`);
  }
  if (deaths !== limits.maxMatchDeliveries)
    faults.push(`poison: ${deaths} matchers died of it, not ${limits.maxMatchDeliveries}`);
  return faults;
}
