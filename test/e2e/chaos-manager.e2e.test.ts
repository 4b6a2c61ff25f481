import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openProcessLedger } from "@lim/local-servers";
import { createTestDatabase, startTestRedis } from "@lim/testkit";
import { expect, test } from "vitest";
import { chaosDefaults, runChaos } from "../chaos/run.ts";

/** A quiet machine needs a twentieth of it. */
const limitMinutes = 8;

test(
  "I3 I4 I9: the master fails six times: another takes over, nothing lost, nothing built twice",
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
          storageRoot: join(dir, "index-storage"),
        },
        {
          ...chaosDefaults,
          failovers: 6,
          leaseTtlMs: 1_000,
          // How soon is measured by `npm run chaos:manager`, on a machine that does nothing else.
          takeoverSlackMs: 30_000,
          maxMinutes: limitMinutes,
          flushEvery: 4,
          restartEvery: 5,
        },
      );
      expect({ violations: report.violations, evidence: report.evidence }).toEqual({
        violations: [],
        evidence: [],
      });
      expect(report.failovers).toBe(6);
      expect(report.takeover.max_ms).toBeLessThanOrEqual(report.allowed_takeover_ms);
      expect(report.figures.publications).toBeGreaterThan(0);
    } finally {
      await Promise.all([redis.stop(), database.drop()]);
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    }
  },
  1.5 * limitMinutes * 60_000,
);
