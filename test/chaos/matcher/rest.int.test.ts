import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openIndexStorage } from "@lim/index-storage";
import { createTestDatabase, type Service, startTestRedis, type TestRedis } from "@lim/testkit";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createFindings } from "../findings.ts";
import type { Place } from "../place.ts";
import { judgeConvergence, judgeNothingLeft, judgeOpenFiles } from "./rest.ts";
import { ListTruth } from "./truth.ts";

let dir: string;
let redis: TestRedis;
let raw: Redis;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-rest-"));
  redis = await startTestRedis();
  raw = new Redis(redis.url);
});
afterAll(async () => {
  raw?.disconnect();
  await redis?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** A matcher that does not answer, in a process that is this one. */
const silent = {
  members: [
    {
      place: {
        name: "silent",
        service: () =>
          ({ name: "silent", url: "http://127.0.0.1:1", process: { pid: process.pid } }) as Service,
      } as Place,
      life: undefined,
    },
  ],
};

test("lists that no matcher serves, a ledger that is behind and entries that are left are told in the end", async () => {
  const database = await createTestDatabase();
  try {
    const { listId } = await database.db.createList({ name: "rest" });
    const truth = new ListTruth(listId);
    const stream = `lim_match:${listId}`;
    await raw.xgroup("CREATE", stream, "lim_matcher", "0", "MKSTREAM");
    await raw.xadd(stream, "*", "n", 1);
    await raw.xreadgroup("GROUP", "lim_matcher", "dead", "STREAMS", stream, ">");
    const storage = await openIndexStorage({ root: join(dir, "storage") });
    const judge = async (truths: Map<string, ListTruth>) => {
      const findings = createFindings();
      const deps = { db: database.db, storage, redis: raw, fleet: silent, findings, descriptorVersion: 1 };
      await judgeConvergence({ ...deps, truths }, 500);
      return findings.violations.join();
    };
    expect(await judge(new Map())).toBe("");
    expect(await judge(new Map([[listId, truth]]))).toMatch(
      /silent has list .* as undefined; the key of .*; 1 entries of .* are pending; 1 entries .* are left/,
    );
    truth.begin([{ faceId: listId, kind: "gone" }]).committed(1);
    expect(await judge(new Map([[listId, truth]]))).toMatch(/the ledger of list .* is at 1 of 0/);
  } finally {
    await database.drop();
  }
});

test.runIf(process.platform === "linux")(
  "a file of an index that is held open is told in the end",
  async () => {
    const findings = createFindings();
    await judgeOpenFiles(silent, [dir], findings, 500);
    expect(findings.violations).toEqual([]);
    const file = await open(join(dir, "held"), "w");
    await judgeOpenFiles(silent, [dir], findings, 500);
    await file.close();
    expect(findings.violations).toMatchObject([expect.stringMatching(/holds no file of an index .*held/)]);
  },
);

test("I8: keys, streams, staging and scratch that are left are told in the end", async () => {
  const storageRoot = join(dir, "left");
  const scratchDir = join(dir, "scratch");
  for (const folder of [join(storageRoot, ".staging"), scratchDir]) await mkdir(folder, { recursive: true });
  const judge = async () => {
    const findings = createFindings();
    await judgeNothingLeft({ redis: raw, storageRoot, scratchDir, findings });
    return findings.violations;
  };
  await raw.flushall();
  // A consumer that was killed, holding nothing.
  await raw.xgroup("CREATE", "lim_match:swept", "lim_matcher", "0", "MKSTREAM");
  await raw.xgroup("CREATECONSUMER", "lim_match:swept", "lim_matcher", "dead");
  expect(await judge()).toEqual([]);
  await raw.set("matching_label__label__host:1", "{}");
  await raw.zadd("lim:labels", Date.now() + 60_000, "label|host:1");
  await raw.xgroup("CREATE", "lim_match:label", "lim_matcher", "0", "MKSTREAM");
  await raw.xadd("lim_reply:client", "*", "hello", "1");
  await mkdir(join(storageRoot, ".staging", "attempt"));
  await mkdir(join(scratchDir, "lim-open-1"));
  expect(await judge()).toHaveLength(6);
});
