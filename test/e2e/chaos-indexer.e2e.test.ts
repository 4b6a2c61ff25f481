import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openProcessLedger } from "@lim/local-servers";
import { createTestDatabase, startTestRedis } from "@lim/testkit";
import { expect, test } from "vitest";
import { chaosDefaults, runChaos } from "../chaos/indexer/run.ts";

/** A quiet machine needs a quarter of it. */
const limitMs = 300_000;

test(
  "I2 I3 I4: ten kills of builds and indexers: no partial index visible, no task stuck, nothing left",
  async () => {
    const dir = await mkdtemp(join(tmpdir(), "lim-chaos-"));
    const [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
    try {
      const postgres = { url: database.url, pids: [], stop: () => database.drop() };
      const report = await runChaos(
        {
          servers: { redis, postgres, ledger: await openProcessLedger(dir), ledgerDir: dir },
          db: database.db,
          storageRoot: join(dir, "index-storage"),
          scratchDir: join(dir, "scratch"),
        },
        { ...chaosDefaults, kills: 10, seed: 7, maxMinutes: 2.5, lists: 5, faces: 1_000 },
      );
      expect({ violations: report.violations, evidence: report.evidence }).toEqual({
        violations: [],
        evidence: [],
      });
      expect(report.kills).toBe(10);
      expect(report.figures["tasks ended"]?.success).toBeGreaterThan(0);
      expect(report.figures.contents?.["newest indexes compared with their lists"]).toBe(5);
    } finally {
      await Promise.all([redis.stop(), database.drop()]);
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    }
  },
  limitMs,
);
