import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isProcessRunning } from "@lim/local-servers";
import { afterEach, describe, expect, it } from "vitest";
import {
  corruptFile,
  eventually,
  type ManagedProcess,
  startFlakyProxy,
  startProcess,
  startTestRedis,
} from "../src/index.ts";

const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
const started: ManagedProcess[] = [];
const chatty = (mode: string) => {
  const child = startProcess({ name: mode, script: fixture("chatty.mjs"), args: [mode] });
  started.push(child);
  return child;
};
afterEach(async () => {
  for (const child of started.splice(0)) await child.stop({ graceMs: 0 });
});

describe("startProcess", () => {
  it("finds past and future lines of both streams", async () => {
    const child = chatty("plain");
    const future = child.waitForLine(/last/g, { timeoutMs: 60_000 });
    expect(await future).toBe("last line");
    expect(await child.waitForLine(/^first/, { timeoutMs: 1 })).toBe("first line, plain");
    await child.waitForLine(/standard error/, { timeoutMs: 60_000 });
  });

  it("rejects with the last lines when the process ends or the time is over", async () => {
    const child = chatty("exit");
    await expect(child.waitForLine(/never/, { timeoutMs: 60_000 })).rejects.toThrow(
      /ended with 3[\s\S]*last line/,
    );
    expect(await child.exited).toBe(3);
    await expect(child.waitForLine(/never/, { timeoutMs: 60_000 })).rejects.toThrow(/ended with 3/);
    await expect(chatty("plain").waitForLine(/never/, { timeoutMs: 50 })).rejects.toThrow(/50 ms passed/);
  });

  it("kills a process that ignores SIGTERM after its grace", async () => {
    const child = chatty("stubborn");
    await child.waitForLine(/last/, { timeoutMs: 60_000 });
    await child.stop({ graceMs: 100 });
    expect(await child.exited).toBe("SIGKILL");
    await child.stop();
  });

  it("keeps a bounded number of lines", async () => {
    const child = chatty("flood");
    await child.waitForLine(/last line/, { timeoutMs: 60_000 });
    expect(child.lines.length).toBeLessThanOrEqual(20_000);
    expect(child.lines.at(-1)).toBe("last line");
  });

  it("takes its children along when the test process ends", async () => {
    const parent = startProcess({ name: "parent", script: fixture("parent.mjs") });
    started.push(parent);
    const line = await parent.waitForLine(/^child \d+/, { timeoutMs: 60_000 });
    const pid = Number(line.split(" ")[1]);
    await parent.exited;
    await eventually("the child is gone", async () => ((await isProcessRunning(pid)) ? undefined : true));
  });
});

describe("eventually", () => {
  it("resolves with the first value, retries throws, and rejects with the reason", async () => {
    let calls = 0;
    const probe = () => {
      calls++;
      if (calls < 3) throw new Error("not yet");
      return calls < 5 ? undefined : calls;
    };
    expect(await eventually("five calls", probe, { intervalMs: 1 })).toBe(5);
    const failing = () => {
      throw new Error("no luck");
    };
    await expect(eventually("luck", failing, { timeoutMs: 30, intervalMs: 5 })).rejects.toThrow(
      /not within 30 ms: luck \(no luck\)/,
    );
  });

  it("does not wait for a probe that hangs", async () => {
    const hang = () => new Promise<number>(() => {});
    await expect(eventually("an answer", hang, { timeoutMs: 50 })).rejects.toThrow(/did not return/);
  });
});

describe("startTestRedis", () => {
  it("comes back empty on the same port after a kill, and leaves nothing at the end", async () => {
    const redis = await startTestRedis();
    try {
      const [before] = redis.pids;
      process.kill(before ?? 0, "SIGKILL");
      await redis.restart();
      expect(redis.pids[0]).not.toBe(before);
      expect(await isProcessRunning(redis.pids[0] ?? 0)).toBe(true);
    } finally {
      await redis.stop();
    }
    for (const pid of redis.pids) expect(await isProcessRunning(pid)).toBe(false);
  });
});

describe("corruptFile", () => {
  it("does exactly the damage asked for and refuses damage outside the file", async () => {
    const dir = await mkdtemp(join(tmpdir(), "lim-corrupt-"));
    try {
      const path = join(dir, "file");
      const content = async () => [...(await readFile(path))];
      await writeFile(path, Uint8Array.of(1, 2, 3, 4));
      await corruptFile(path, { flipByteAt: -1 });
      expect(await content()).toEqual([1, 2, 3, 4 ^ 0xff]);
      await corruptFile(path, { zeroFrom: 0, bytes: 2 });
      expect(await content()).toEqual([0, 0, 3, 4 ^ 0xff]);
      await corruptFile(path, { truncateTo: 3 });
      await corruptFile(path, { append: Uint8Array.of(9) });
      expect(await content()).toEqual([0, 0, 3, 9]);
      for (const outside of [{ flipByteAt: 4 }, { truncateTo: 4 }, { zeroFrom: 3, bytes: 2 }])
        await expect(corruptFile(path, outside)).rejects.toThrow(RangeError);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

describe("startFlakyProxy", () => {
  it("passes, holds back, resets and recovers", async () => {
    const echo = createServer((socket: Socket) => socket.on("error", () => {}).pipe(socket));
    await once(echo.listen(0, "127.0.0.1"), "listening");
    const address = echo.address();
    const proxy = await startFlakyProxy(typeof address === "object" && address ? address.port : 0);
    const dial = () => {
      const socket = connect(proxy.port, "127.0.0.1");
      const seen = { text: "", closed: false };
      socket.on("data", (chunk) => {
        seen.text += chunk;
      });
      socket.on("error", () => {});
      socket.on("close", () => {
        seen.closed = true;
      });
      return { socket, seen };
    };
    const first = dial();
    try {
      first.socket.write("one");
      await eventually("an echo", () => (first.seen.text === "one" ? true : undefined));
      proxy.pause();
      first.socket.write("two");
      const late = dial();
      late.socket.write("late");
      await expect(
        eventually("nothing", () => (first.seen.text + late.seen.text === "one" ? undefined : true), {
          timeoutMs: 200,
        }),
      ).rejects.toThrow(/never held/);
      proxy.resume();
      await eventually("what was held back", () =>
        first.seen.text === "onetwo" && late.seen.text === "late" ? true : undefined,
      );
      proxy.cut();
      await eventually("both closed", () => (first.seen.closed && late.seen.closed ? true : undefined));
      const refused = dial();
      await eventually("a refusal", () => (refused.seen.closed ? true : undefined));
      proxy.resume();
      const again = dial();
      again.socket.write("back");
      await eventually("an echo again", () => (again.seen.text === "back" ? true : undefined));
      expect(proxy.connections).toBe(1);
    } finally {
      await proxy.close();
      echo.close();
    }
  });
});
