import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isProcessRunning } from "@lim/local-servers";
import { createFaceGenerator, eventually, faceIdOf, type ManagedProcess, startProcess } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lim } from "./lim-process.ts";
import { limMain } from "./support.ts";

const dim = 32;
const generator = createFaceGenerator({ dim, effectiveDim: 24 });
let home: string;
let stack: ManagedProcess;
let env: Record<string, string>;

/** As a newcomer: start the stack, take what it prints, work with it. */
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "lim-up-"));
  stack = await up();
});
afterAll(async () => {
  await stack?.stop();
  await rm(home, { recursive: true, force: true, maxRetries: 5 });
});

async function up(apiToken = ""): Promise<ManagedProcess> {
  const started = startProcess({
    name: "lim up",
    script: limMain,
    args: ["up", "--free-ports"],
    env: {
      LIM_HOME: home,
      LIM_DESCRIPTOR_DIM: String(dim),
      REDIS_URL: "",
      DATABASE_URL: "",
      LIM_API_TOKEN: apiToken,
    },
  });
  await started.waitForLine(/Ctrl-C stops everything/, { timeoutMs: 120_000 });
  env = { LIM_DESCRIPTOR_DIM: String(dim), LIM_API_TOKEN: apiToken };
  for (const line of started.lines) {
    const [, name, value] = /^export (\w+)=(.*)$/.exec(line) ?? [];
    if (name && value) env[name] = value;
  }
  return started;
}

const pidsOf = (lines: readonly string[]) =>
  lines.map((line) => Number(/\(process (\d+)\)/.exec(line)?.[1])).filter((pid) => pid > 0);

function ndjson(persons: number, first = 0): string {
  return Array.from({ length: persons }, (_, i) =>
    JSON.stringify({ face_id: faceIdOf("up", first + i), descriptor: [...generator.vector(first + i, 0)] }),
  ).join("\n");
}

test("import, index, match and list by the printed settings", async () => {
  const file = join(home, "faces.ndjson");
  const bad = JSON.stringify({ face_id: faceIdOf("up", 9_999), descriptor: [1, 2] });
  await writeFile(file, `${ndjson(600)}\n${bad}\n{"face_id": 1}\n`);
  const imported = await lim(["import", file, "--list", "staff"], env);
  expect(imported.code, imported.stderr).toBe(3);
  expect(imported.stdout).toMatch(/600 faces imported, 2 bad rows/);
  expect(imported.stdout).toMatch(/line 601: .*\n\s+line 602: /);
  const listId = /list staff \(([0-9a-f-]{36})\), new/.exec(imported.stdout)?.[1] ?? "";

  const again = await lim(["import", file, "--list", "staff", "--json"], env);
  expect(JSON.parse(again.stdout)).toMatchObject({ list_id: listId, resumed_from_row: 602, rows: 602 });
  const anew = await lim(["import", file, "--list", "staff", "--again", "--json"], env);
  expect(JSON.parse(anew.stdout)).toMatchObject({ resumed_from_row: 0, imported: 600, bad: 2 });

  const query = join(home, "query.json");
  await writeFile(query, JSON.stringify({ descriptor: [...generator.vector(7, 0)] }));
  const exact = await lim(["match", "--list", "staff", "--descriptor", query, "--json"], env);
  expect(JSON.parse(exact.stdout)).toMatchObject({
    path: "exact",
    label: listId,
    matches: [{ face_id: faceIdOf("up", 7) }, ...Array.from({ length: 9 }, () => ({}))],
  });

  const created = await lim(["tasks", "create", "--list", listId, "--watch"], env);
  expect(created.code, created.stderr).toBe(0);
  const indexId = /index ([0-9a-f-]{36}) is published/.exec(created.stdout)?.[1];
  await eventually(
    "lim match is answered by the index",
    async () => {
      const run = await lim(["match", "--list", listId, "--face", faceIdOf("up", 11), "--json"], env);
      const answer = JSON.parse(run.stdout);
      return answer.path === "index" ? (expect(answer).toMatchObject({ indexId }) ?? true) : undefined;
    },
    { timeoutMs: 60_000, intervalMs: 200 },
  );
  expect((await lim(["tasks"], env)).stdout).toContain(`${indexId}  success`);
  expect((await lim(["indexes"], env)).stdout).toContain(`${indexId}  ${listId}  600`);
});

test("without any setting, commands find the stack that runs in their home", async () => {
  const probes = join(home, "probes.f32");
  await writeFile(
    probes,
    Buffer.concat([7, 21].map((person) => new Uint8Array(generator.vector(person, 0).buffer))),
  );
  // As in another terminal: nothing is set there.
  const bare = {
    LIM_HOME: home,
    REDIS_URL: "",
    DATABASE_URL: "",
    LIM_MANAGER_URL: "",
    LIM_STORAGE_ROOT: "",
    LIM_DESCRIPTOR_DIM: "",
  };
  const run = await lim(["match", "--list", "staff", "--descriptor", probes, "--limit", "1", "--json"], bare);
  expect(run.code, run.stderr).toBe(0);
  const answers = run.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(answers).toMatchObject([
    { probe: "1", matches: [{ face_id: faceIdOf("up", 7) }], revision: expect.any(Number) },
    { probe: "2", matches: [{ face_id: faceIdOf("up", 21) }] },
  ]);
  const table = await lim(["match", "--list", "staff", "--face", faceIdOf("up", 3)], bare);
  expect(table.stdout).toMatch(/1 +1\.0000 +/);
  expect(table.stdout).toMatch(/(index [0-9a-f-]{36}|exact search), revision \d+/);

  const report = JSON.parse((await lim(["doctor", "--json", "--timeout", "60000"], bare)).stdout);
  const statusOf = (check: string) =>
    report.findings.find((finding: { check: string }) => finding.check === check)?.status;
  for (const check of ["redis", "redis.persistence", "postgres.migrations", "storage", "manager"])
    expect(statusOf(check), check).toBe("ok");
  const second = await lim(["up", "--free-ports", "--json"], bare);
  expect(second.code).toBe(2);
  expect(JSON.parse(second.stderr)).toMatchObject({
    error: { error_code: 26008, detail: expect.stringContaining("runs already") },
  });
});

test("a service that was killed is started again, at its place", async () => {
  const [, url, pid] = /indexed-matcher-1 +(http\S+) +\(process (\d+)\)/.exec(stack.lines.join("\n")) ?? [];
  process.kill(Number(pid), "SIGKILL");
  await stack.waitForLine(/indexed-matcher-1 runs again/, { timeoutMs: 60_000 });
  const ready = await eventually("it is ready", async () => (await fetch(`${url}/readyz`)).ok || undefined);
  expect(ready).toBe(true);
});

test("so is a private Redis that was killed, and the stack goes on", async () => {
  const ledger = join(home, "processes");
  const entries = await Promise.all(
    (await readdir(ledger)).map(async (name) => JSON.parse(await readFile(join(ledger, name), "utf8"))),
  );
  const redis: { pid: number } = entries.find(({ name }) => name === "redis");
  process.kill(redis.pid, "SIGKILL");
  await stack.waitForLine(/redis runs again/, { timeoutMs: 60_000 });
  await eventually("a manager answers from it", async () => {
    const run = await lim(["queue", "--json"], env);
    return run.code === 0 || undefined;
  });
});

test("errors name their cause and remedy", async () => {
  const missing = await lim(["match", "--list", "nobody", "--face", faceIdOf("up", 1)], env);
  expect(missing.code).toBe(1);
  expect(missing.stderr).toContain('no list is called "nobody"');
  const unset = await lim(["import", "x.csv", "--list", "a"], { DATABASE_URL: "" });
  expect(unset.code).toBe(2);
  expect(unset.stderr).toContain("DATABASE_URL is not set");
  const unknown = await lim(["tasks", "create", "--list", faceIdOf("up", 1)], env);
  expect(unknown.code).toBe(1);
  expect(unknown.stderr).toContain("26102");
});

test("Ctrl-C stops every process; the next start, now with a token, has faces and indexes again", async () => {
  const pids = pidsOf(stack.lines);
  // Six services, the one that was started again, and Redis before and after.
  expect(pids.length).toBe(9);
  stack.kill("SIGINT");
  expect(await stack.exited).toBe(0);
  const nothing = await lim(["match", "--list", "staff", "--face", faceIdOf("up", 3)], {
    LIM_HOME: home,
    REDIS_URL: "",
    DATABASE_URL: "",
    LIM_MANAGER_URL: "",
    LIM_STORAGE_ROOT: "",
  });
  expect(nothing.code).toBe(2);
  expect(nothing.stderr).toContain("REDIS_URL is not set, and no lim up runs here");
  for (const pid of pids) expect(await isProcessRunning(pid)).toBe(false);

  const token = "a-token-of-this-test";
  stack = await up(token);
  const refused = await lim(["indexes"], { ...env, LIM_API_TOKEN: "" });
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain("set LIM_API_TOKEN");
  expect(await statuses("indexer", "/state", token)).toEqual([401, 401, 200]);
  expect(await statuses("indexed-matcher", "/indexes", token)).toEqual([401, 401, 200]);
  expect((await lim(["indexes"], env)).stdout).toMatch(/ 600 /);
  const answer = await eventually(
    "the index is served again",
    async () => {
      const run = await lim(["match", "--list", "staff", "--face", faceIdOf("up", 3), "--json"], env);
      const parsed = JSON.parse(run.stdout);
      return parsed.path === "index" ? parsed : undefined;
    },
    { timeoutMs: 60_000, intervalMs: 200 },
  );
  expect(answer.matches[0].face_id).toBe(faceIdOf("up", 3));
  const built = await lim(["tasks", "create", "staff", "--watch"], env);
  expect(built.code, `${built.stdout}${built.stderr}`).toBe(0);
  expect(built.stdout).toContain("is published");
});

/** How the first service of a kind answers without a token, with another one, with the right one. */
async function statuses(kind: string, path: string, token: string): Promise<number[]> {
  const url = new RegExp(`${kind}-1 +(http\\S+) `).exec(stack.lines.join("\n"))?.[1];
  const headers: Record<string, string>[] = [
    {},
    { authorization: `Bearer ${token}-` },
    { authorization: `Bearer ${token}` },
  ];
  return Promise.all(headers.map(async (of) => (await fetch(url + path, { headers: of })).status));
}
