import { availableEngines } from "@lim/vector-index";
import { afterAll, beforeAll, expect, it } from "vitest";
import { measureChurn } from "./churn.ts";
import { type Stack, startStack } from "./support.ts";

const seed = 20_261_121;
const tolerance = 0.01;
/** A bound for a machine that does much else. */
const timeoutMs = 180_000;

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
});
afterAll(() => stack?.close());

/** An engine that gives the places of removed faces to new ones bears any churn; the other is rebuilt past 10 %. */
const shares = { hnsw: [0.1, 0.5], hnswlib: [0.05, 0.1] } as const;

it.each(await availableEngines())(
  "recall@10 of updated indexes of %s under churn is within 0.01 of a fresh build's",
  async (engine) => {
    const faces = 3000;
    const rows = await measureChurn(stack, { engine, faces, shares: shares[engine], probes: 200, seed });
    expect(rows.map(({ removedSinceRebuild }) => removedSinceRebuild)).toEqual(
      shares[engine].map((share) => faces * share),
    );
    for (const { updated, fresh, replacedShare } of rows)
      expect(updated, `at ${replacedShare} replaced, fresh ${fresh}`).toBeGreaterThanOrEqual(
        fresh - tolerance,
      );
  },
  timeoutMs,
);
