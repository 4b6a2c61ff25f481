import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openProcessLedger } from "@lim/local-servers";
import { createTestDatabase, startTestRedis } from "@lim/testkit";
import { expect, test } from "vitest";
import { chaosDefaults, runChaos } from "../chaos/indexer/run.ts";

/** A quiet machine needs a twentieth of it. */
const limitMinutes = 8;

test(
  "I2 I3 I4: six kills of builds and indexers: no partial index visible, no task stuck, nothing left",
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
        { ...chaosDefaults, kills: 6, seed: 7, maxMinutes: limitMinutes, lists: 4, faces: 600 },
      );
      expect({ violations: report.violations, evidence: report.evidence }).toEqual({
        violations: [],
        evidence: [],
      });
      expect(report.kills).toBe(6);
      expect(report.figures["tasks ended"]?.success).toBeGreaterThan(0);
      expect(report.figures.contents?.["newest indexes compared with their lists"]).toBe(4);
    } finally {
      await Promise.all([redis.stop(), database.drop()]);
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    }
  },
  1.5 * limitMinutes * 60_000,
);
