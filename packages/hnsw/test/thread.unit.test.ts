import { spawnSync } from "node:child_process";
import { expect, it } from "vitest";

it("a thread that was started and never got a job holds no process", () => {
  const source = `
    import { Thread } from ${JSON.stringify(new URL("../src/thread.ts", import.meta.url).href)};
    const empty = new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
    const thread = new Thread(0, new Int32Array(new SharedArrayBuffer(4)), () => {});
    process.exitCode = thread.start(empty) ? 7 : 1;`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", source], {
    encoding: "utf8",
    timeout: 60_000,
    killSignal: "SIGKILL",
  });
  expect(status, stderr).toBe(7);
});
