import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createTestDatabase, startTestRedis } from "@lim/testkit";
import { expect, it } from "vitest";
import { reportOf, runCampaign } from "../contract/campaign.ts";
import { startWorld } from "../contract/world.ts";

/** `npm run fuzz:api` sends more, and with other seeds. */
const seed = 20_261_121;
const limitMs = 480_000;
const requests = 700;

it(
  "I11: every operation of the committed document does what it says, asked well and asked badly",
  async () => {
    const closers: (() => Promise<unknown>)[] = [];
    try {
      const dir = await mkdtemp(join(tmpdir(), "lim-contract-"));
      closers.push(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
      const redis = await startTestRedis();
      closers.push(() => redis.stop());
      const database = await createTestDatabase();
      closers.push(() => database.drop());
      const world = await startWorld(
        { redisUrl: redis.url, databaseUrl: database.url, db: database.db },
        dir,
      );
      closers.push(() => world.close());
      const result = await runCampaign(world, { seed, requests, durationMs: limitMs, concurrency: 8 });
      const report = reportOf(result, seed);
      console.log(report);
      expect(result.findings, report).toEqual([]);
      expect(result.faults, report).toEqual([]);
    } finally {
      for (const close of closers.toReversed()) await close();
    }
  },
  1.5 * limitMs,
);
