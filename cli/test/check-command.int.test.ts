import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { IndexStorage } from "@lim/index-storage";
import { connectSql } from "@lim/local-servers";
import { corruptFile, createTestDatabase, eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { checkReportSchema } from "../src/check/report.ts";
import { newFaces, newList, newStorage, publishList } from "./check-world.ts";

const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const children = new Set<ChildProcess>();
let database: Awaited<ReturnType<typeof createTestDatabase>>;
let storage: IndexStorage;
let label: string;
let indexId: string;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database?.drop());
beforeEach(async () => {
  storage = await newStorage();
  const faces = newFaces(60);
  label = await newList(database.db, faces);
  indexId = await publishList(storage, database.db, label, faces);
});
afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  children.clear();
});

function start(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [main, "check", ...args], {
    env: { ...process.env, LIM_STORAGE_ROOT: storage.root, DATABASE_URL: database.url, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.add(child);
  const run = { child, stdout: "", stderr: "" };
  child.stdout.on("data", (chunk) => {
    run.stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    run.stderr += chunk;
  });
  return run;
}

async function lim(args: readonly string[], env: Record<string, string> = {}) {
  const run = start(args, env);
  const [code] = (await once(run.child, "close")) as [number | null];
  return { ...run, code };
}

test("one index, those of a list and all are checked; the report is text, or one JSON document", async () => {
  const text = await lim([indexId, "--seed", "5", "--sample", "20"]);
  expect(text.code, text.stderr).toBe(0);
  expect(text.stdout).toContain(`index ${indexId}`);
  expect(text.stdout).toContain("sample 20, seed 5");
  expect(text.stderr).toMatch(/checking +100% · 60\/60 faces/);
  for (const scope of [["--label", label], ["--all"]]) {
    const json = await lim([...scope, "--json"]);
    expect(json.code, json.stderr).toBe(0);
    const report = checkReportSchema.parse(JSON.parse(json.stdout));
    expect(report.indexes.map(({ index_id }) => index_id)).toEqual([indexId]);
    expect(report).toMatchObject({ database: true, summary: { errors: 0 }, sample: 100 });
  }
});

test("the exit code is 1 for an index with errors, and for warnings where it is strict", async () => {
  const [state] = await database.db.listStates({ listIds: [label] });
  await database.db.deleteList({ listId: state?.listId ?? "" });
  expect((await lim([indexId])).code).toBe(0);
  expect((await lim([indexId, "--strict"])).code).toBe(1);
  await corruptFile(join(storage.root, label, indexId, "index.dat"), { flipByteAt: -9 });
  const corrupt = await lim(["--all", "--json", "--no-database"], { DATABASE_URL: "" });
  expect(corrupt.code).toBe(1);
  expect(checkReportSchema.parse(JSON.parse(corrupt.stdout))).toMatchObject({
    exit_code: 1,
    database: false,
  });
});

test("the exit code is 2 for wrong arguments and settings", async () => {
  for (const args of [
    [],
    ["--all", indexId],
    ["no-id"],
    [randomUUID()],
    ["--label", "no such list"],
    ["--all", "--sample", "0"],
  ])
    expect((await lim(args)).code, args.join(" ")).toBe(2);
  const noDatabase = await lim(["--all"], { DATABASE_URL: "" });
  expect(noDatabase).toMatchObject({ code: 2, stderr: expect.stringContaining("--no-database") });
  expect((await lim(["--all"], { LIM_STORAGE_ROOT: "" })).code).toBe(2);
  // A folder that is none of the storage's must not become one.
  expect((await lim(["--all"], { LIM_STORAGE_ROOT: join(storage.root, label) })).code).toBe(2);
});

test("the exit code is 3 where the storage or the database is away", async () => {
  const noStorage = await lim(["--all"], { LIM_STORAGE_ROOT: join(storage.root, "not-there") });
  expect(noStorage).toMatchObject({ code: 3, stdout: "" });
  const noDatabase = await lim(["--all", "--json"], { DATABASE_URL: "postgres://127.0.0.1:1/none" });
  expect(noDatabase.code).toBe(3);
  expect(JSON.parse(noDatabase.stdout)).toMatchObject({ exit_code: 3, failure: { error_code: 26020 } });
});

test("SIGINT ends it with 130, without a report", async () => {
  const sql = await connectSql(database.url);
  // A transaction sees one state of the sessions, that of its first look.
  const observer = await connectSql(database.url);
  try {
    // The check waits for its list: nobody reads the table while it is locked.
    await sql.query("BEGIN");
    await sql.query("LOCK TABLE faces.list_face IN ACCESS EXCLUSIVE MODE");
    const run = start([indexId]);
    const waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1";
    await eventually("it waits for its list", async () =>
      (await observer.query(waiting, ["lim check"])).length > 0 ? true : undefined,
    );
    run.child.kill("SIGINT");
    const [code] = (await once(run.child, "close")) as [number | null];
    expect(code).toBe(130);
    expect(run.stdout).toBe("");
  } finally {
    await Promise.all([sql.close(), observer.close()]);
  }
});
