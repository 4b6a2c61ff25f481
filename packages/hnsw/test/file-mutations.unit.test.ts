import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Campaign } from "./mutations.ts";

const seed = 20_261_121;
const cases = 1500;

test(`${cases} damaged files, seed ${seed}: each refused or harmless`, async () => {
  const folder = mkdtempSync(join(tmpdir(), "hnsw-mutations-"));
  try {
    const campaign = await Campaign.in(folder);
    for (let number = 0; number < cases; number++) await campaign.run(seed, number);
    const { outcome } = campaign;
    expect(outcome.violations).toEqual([]);
    expect(outcome.cases).toBe(cases);
    // Neither of the two ends of the campaign is vacuous, and the validator had its say.
    expect(outcome.answered - outcome.unchanged).toBeGreaterThan(cases / 100);
    const reasons = Object.keys(outcome.refused).join("\n");
    for (const why of ["not an index", "truncated", "extended", "corrupt", "a link leads outside", "a scale"])
      expect(reasons).toContain(why);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
