import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { announceStack, readStack, withdrawStack, withRunningStack } from "../src/running-stack.ts";
import { readSettings } from "../src/settings.ts";

let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "lim-stack-"));
});
afterAll(() => rm(home, { recursive: true, force: true }));

const stack = {
  pid: process.pid,
  redisUrl: "redis://127.0.0.1:1",
  databaseUrl: "postgres://u:hunter2@127.0.0.1:2/lim",
  managerUrl: "http://127.0.0.1:3",
  storageRoot: "/s",
  dim: 32,
  descriptorVersion: 1,
};
const file = () => join(home, "running.json");

test("a stack is found while its process runs, by settings that name no server, and only its owner reads it", async () => {
  await writeFile(`${file()}.${process.pid}`, "left by a crash", { mode: 0o644 });
  await announceStack(home, stack);
  expect(await readStack(home)).toEqual(stack);
  expect((await stat(file())).mode & 0o777).toBe(0o600);
  const settings = await withRunningStack(readSettings({ LIM_HOME: home }));
  expect(settings).toMatchObject({ redisUrl: stack.redisUrl, managerUrl: stack.managerUrl, dim: 32 });
  const named = readSettings({ LIM_HOME: home, REDIS_URL: "redis://h" });
  expect(await withRunningStack(named)).toBe(named);
  await withdrawStack(home);
  expect(await readStack(home)).toBeUndefined();
});

test("the file of a stack that was killed is nobody's, though another process has its id by now", async () => {
  await announceStack(home, stack);
  const written = JSON.parse(await readFile(file(), "utf8"));
  for (const changed of [{ identity: "an earlier start" }, { identity: undefined }, { pid: 2 ** 30 }]) {
    await writeFile(file(), JSON.stringify({ ...written, ...changed }));
    expect(await readStack(home), JSON.stringify(changed)).toBeUndefined();
  }
  await writeFile(file(), "{");
  expect(await readStack(home)).toBeUndefined();
});
