import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openProcessLedger } from "@lim/local-servers";
import { createTestDatabase, startTestRedis } from "@lim/testkit";
import { expect, test } from "vitest";
import { chaosDefaults, runChaos } from "../chaos/matcher/run.ts";

/** A quiet machine needs a thirtieth of it. */
const limitMs = 480_000;

test(
  "I5 I6 I8 I12: matchers killed and paused, Redis emptied, an index damaged: one right answer or a clear error in time",
  async () => {
    const dir = await mkdtemp(join(tmpdir(), "lim-chaos-"));
    const [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
    try {
      const postgres = { url: database.url, pids: [], stop: () => database.drop() };
      const report = await runChaos(
        {
          servers: { redis, postgres, ledger: await openProcessLedger(dir), ledgerDir: dir },
          redis,
          db: database.db,
          dir,
        },
        {
          ...chaosDefaults,
          seed: 7,
          matchers: 2,
          lists: 2,
          faces: { least: 200, most: 400 },
          callers: 6,
          faults: ["SIGKILL matcher", "FLUSHALL", "index damaged", "SIGSTOP matcher"],
        },
      );
      const { violations, evidence, history } = report;
      expect({ violations, evidence, history: violations.length > 0 ? history : [] }).toEqual({
        violations: [],
        evidence: [],
        history: [],
      });
      expect(report.faults).toBe(4);
      expect(report.figures.judged?.answers).toBeGreaterThan(0);
    } finally {
      await Promise.all([redis.stop(), database.drop()]);
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    }
  },
  limitMs,
);
