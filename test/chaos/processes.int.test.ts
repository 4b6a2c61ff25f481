import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "@lim/testkit";
import { expect, test } from "vitest";
import { childrenOf, isAlive, processesMarked, signalProcess } from "./processes.ts";
import { makeReadOnly } from "./read-only.ts";

test.runIf(process.platform === "linux")(
  "a child is found by its parent and by its mark, stopped, and known to be gone",
  async () => {
    const mark = randomUUID();
    const script = "setInterval(() => {}, 1_000)";
    const child = spawn(process.execPath, ["-e", script], { env: { LIM_CHAOS_RUN: mark }, stdio: "ignore" });
    try {
      const found = await eventually("the child runs", async () =>
        (await childrenOf(process.pid)).find(({ commandLine }) => commandLine.includes(script)),
      );
      expect(found.pid).toBe(child.pid);
      expect((await processesMarked(`LIM_CHAOS_RUN=${mark}`))?.map(({ pid }) => pid)).toEqual([child.pid]);
      expect(await processesMarked(`LIM_CHAOS_RUN=${randomUUID()}`)).toEqual([]);
      expect(await isAlive(found)).toBe(true);
      expect(await isAlive({ ...found, started: "1" })).toBe(false);
      expect(await signalProcess(found, "SIGKILL")).toBe(true);
      await eventually("it is gone", async () => ((await isAlive(found)) ? undefined : true));
      expect(await signalProcess(found, "SIGKILL")).toBe(false);
    } finally {
      child.kill("SIGKILL");
    }
  },
);

test("a folder is read-only until that is undone, where this is possible at all", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lim-read-only-"));
  try {
    const undo = makeReadOnly(folder);
    if (undo) await expect(writeFile(join(folder, "a"), "")).rejects.toThrow(/EPERM|EACCES|EROFS/);
    undo?.();
    await writeFile(join(folder, "a"), "");
  } finally {
    await rm(folder, { recursive: true });
  }
});
