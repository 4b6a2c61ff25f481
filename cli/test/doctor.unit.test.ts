import { chmod, mkdir, mkdtemp, readdir, rm, stat, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RedisServerReport } from "@lim/coordination";
import type { DatabaseReport } from "@lim/faces-db";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bytesText, fail, ok, placeOf, within, withoutSecrets } from "../src/doctor/finding.ts";
import { judgeClocks, judgeNode } from "../src/doctor/machine.ts";
import { judgePostgres } from "../src/doctor/postgres.ts";
import { judgeRedis } from "../src/doctor/redis.ts";
import { judgeTrial, probeStorage } from "../src/doctor/storage.ts";
import { tryStorage } from "../src/doctor/storage-trial.ts";

const place = "redis://host:6379";
const soundRedis: RedisServerReport = {
  product: "Redis",
  version: "7.2.1",
  role: "master",
  maxmemoryPolicy: "noeviction",
  usedMemoryBytes: 1 << 20,
  maxmemoryBytes: 0,
  isLoading: false,
  persistence: { appendOnly: true, snapshots: true, fault: undefined },
  writeRefused: undefined,
};
const off = { appendOnly: false, snapshots: true, fault: undefined };

const bad = (findings: readonly { check: string; status: string }[]) =>
  findings.filter(({ status }) => status !== "ok").map(({ check, status }) => `${status} ${check}`);

describe("Redis", () => {
  test("a sound server has nothing but ok", () => {
    expect(bad(judgeRedis(soundRedis, place))).toEqual([]);
  });
  test.each<[string, Partial<RedisServerReport>, string[]]>([
    ["an old version", { version: "6.2.0" }, ["fail redis"]],
    ["a replica", { role: "slave" }, ["fail redis.role"]],
    ["a server that loads", { isLoading: true }, ["warn redis.role"]],
    ["eviction", { maxmemoryPolicy: "allkeys-lru" }, ["fail redis.policy"]],
    ["nearly full", { usedMemoryBytes: 95, maxmemoryBytes: 100 }, ["warn redis.memory"]],
    ["no append-only file", { persistence: off }, ["warn redis.persistence"]],
    [
      "a disk fault",
      { persistence: { ...off, fault: "the last snapshot failed" } },
      ["fail redis.persistence"],
    ],
    ["a refused write", { writeRefused: "OOM command not allowed" }, ["fail redis.write"]],
  ])("%s", (_, change, expected) => {
    expect(bad(judgeRedis({ ...soundRedis, ...change }, place))).toEqual(expected);
  });
  test("the private one of lim up needs no append-only file", () => {
    expect(bad(judgeRedis({ ...soundRedis, persistence: off }, place, true))).toEqual([]);
  });
});

describe("Postgres", () => {
  const sound: DatabaseReport = {
    version: "17.2",
    versionNumber: 170_002,
    database: "lim",
    user: "lim",
    isReadOnly: false,
    freeConnections: 90,
    migrations: { applied: 3, missing: [], changed: [], unknown: [] },
    largestList: 10,
    clock: { localAheadMs: 0, roundTripMs: 1 },
  };
  const migrations = (change: Partial<DatabaseReport["migrations"]>) => ({
    migrations: { ...sound.migrations, ...change },
  });
  test.each<[string, Partial<DatabaseReport>, string[]]>([
    ["a sound server", {}, []],
    ["an old version", { versionNumber: 120_004 }, ["warn postgres"]],
    ["a standby", { isReadOnly: true }, ["fail postgres.role"]],
    ["a fresh database", migrations({ applied: 0, missing: ["0001_a.sql"] }), ["warn postgres.migrations"]],
    ["a missing migration", migrations({ missing: ["0003_c.sql"] }), ["fail postgres.migrations"]],
    ["a changed migration", migrations({ changed: ["0001_a.sql"] }), ["fail postgres.migrations"]],
    ["a newer release", migrations({ unknown: ["0009_z.sql"] }), ["warn postgres.migrations"]],
    ["few connections", { freeConnections: 3 }, ["warn postgres.connections"]],
  ])("%s", (_, change, expected) => {
    expect(bad(judgePostgres({ ...sound, ...change }, "postgres://host/lim"))).toEqual(expected);
  });
  test("a missing migration is named", () => {
    const findings = judgePostgres(
      { ...sound, ...migrations({ missing: ["0003_c.sql"] }) },
      "postgres://h/x",
    );
    expect(findings.map(({ text }) => text).join()).toContain("0003_c.sql missing");
  });
});

test.each([
  ["22.18.0", "ok"],
  ["24.1.0", "ok"],
  ["22.17.1", "fail"],
  ["20.19.0", "fail"],
])("Node %s is %s", (version, status) => {
  expect(judgeNode(version).status).toBe(status);
});

test("clocks may differ by a second, whichever is ahead; without any there is nothing to say", () => {
  const statusOf = (redisMs: number | undefined, postgresMs: number | undefined) =>
    judgeClocks({ redisMs, postgresMs }).map(({ status }) => status);
  expect(statusOf(400, -400)).toEqual(["ok"]);
  expect(statusOf(undefined, -1_500)).toEqual(["warn"]);
  expect(statusOf(700, -700)).toEqual(["warn"]);
  expect(statusOf(undefined, undefined)).toEqual(["skip"]);
});

describe("storage", () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "lim-doctor-"));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));
  const statuses = async (root: string, isSet = true) =>
    bad(await probeStorage({ root, isSet, dim: 8, engine: "hnsw", largestList: undefined })).filter(
      // How much is free is the machine's business.
      (finding) => !finding.endsWith("storage.space"),
    );

  test("a trial in a sound folder finds nothing and leaves nothing, stale ones of others included", async () => {
    await mkdir(join(dir, "sound", ".doctor.old", "x"), { recursive: true });
    await utimes(join(dir, "sound", ".doctor.old"), 1, 1);
    await mkdir(join(dir, "sound", ".doctor.young"));
    expect(await tryStorage(join(dir, "sound"))).toBeUndefined();
    expect(await readdir(join(dir, "sound"))).toEqual([".doctor.young"]);
  });

  test("what the root is", async () => {
    await mkdir(join(dir, "storage", ".staging"), { recursive: true });
    await mkdir(join(dir, "empty"));
    await mkdir(join(dir, "foreign", "photos"), { recursive: true });
    expect(await statuses(join(dir, "storage"))).toEqual([]);
    expect(await statuses(join(dir, "empty"))).toEqual(["warn storage"]);
    expect(await statuses(join(dir, "foreign"))).toEqual(["fail storage"]);
    expect(await statuses(join(dir, "absent"))).toEqual(["fail storage"]);
    // Where lim up will make one: what is above must take it, and nothing is made now.
    expect(await statuses(join(dir, "absent", "below"), false)).toEqual([]);
    await expect(stat(join(dir, "absent"))).rejects.toThrow("ENOENT");
  });

  test.skipIf(process.getuid?.() === 0)("a folder that takes no write", async () => {
    await mkdir(join(dir, "closed"));
    await chmod(join(dir, "closed"), 0o555);
    expect(await statuses(join(dir, "closed"))).toContain("fail storage.write");
  });

  test("faults are told apart: a full disk, renames, the rest", () => {
    const judged = (step: "write" | "rename", reason: string) => {
      const [finding] = judgeTrial("/x", { step, reason });
      return `${finding?.check} ${finding?.text}`;
    };
    expect(judged("write", "ENOSPC: no space left on device, write")).toContain(
      "storage.write the disk of /x is full",
    );
    expect(judged("write", "EROFS: read-only file system")).toContain("storage.write cannot write");
    expect(judged("rename", "EXDEV")).toContain("storage.rename renames in /x are not atomic");
  });
});

test("a probe that hangs or throws is one failure", async () => {
  const probe = (run: () => Promise<never>) =>
    within(20, { check: "x", subject: "host", remedy: "mend it", run });
  expect(await probe(() => new Promise(() => {}))).toEqual([
    fail("x", "host: no answer within 0.02 s", "mend it"),
  ]);
  expect(await probe(() => Promise.reject(new Error("why")))).toEqual([fail("x", "why", "mend it")]);
});

test("no secret is in any text", () => {
  const findings = [ok("a", "p%40ss and p@ss, tokentoken"), fail("b", "text", "use p@ss")];
  const clean = withoutSecrets(findings, ["redis://u:p%40ss@h", undefined], ["tokentoken", undefined]);
  expect(JSON.stringify(clean)).not.toMatch(/p@ss|p%40ss|tokentoken/);
  expect(placeOf("postgres://user:secret@host:5432/name?sslmode=require")).toBe("postgres://host:5432/name");
  expect(placeOf("secret")).toBe("(not a URL)");
  const sentinels = "redis-sentinel://u:one4@a:1,b:2/main?sentinel_password=two5";
  expect(placeOf(sentinels)).toBe("redis-sentinel://a:1,b:2/main");
  expect(JSON.stringify(withoutSecrets([ok("a", "one4 two5")], [sentinels], []))).not.toMatch(/one4|two5/);
});

test("sizes for people", () => {
  expect([0, 1023, 1 << 20, 250 * 2 ** 30].map(bytesText)).toEqual([
    "0 bytes",
    "1023 bytes",
    "1.0 MiB",
    "250 GiB",
  ]);
});
