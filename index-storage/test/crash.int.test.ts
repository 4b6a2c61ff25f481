import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { idOf, openCounted, tempFolder } from "./fixtures.ts";

const script = fileURLToPath(new URL("./publisher.ts", import.meta.url));
const label = idOf(1000);

function startPublisher(root: string, indexId: string, attempt: number) {
  const child = spawn(process.execPath, [script, root, label, indexId, String(attempt)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const exited = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  const said = (text: string) =>
    new Promise<void>((resolve) => {
      const look = () => output.includes(text) && resolve();
      child.stdout.on("data", look);
      child.once("close", () => resolve());
      look();
    });
  return { child, exited, said, output: () => output, errors: () => errors };
}

describe("publishers that die or meet", () => {
  it("I2: killed at any moment, a publisher leaves nothing or a whole index, and the next attempt succeeds", async () => {
    const { storage } = await openCounted(tempFolder());
    const moments = [
      "staged",
      "verify 1",
      "verify 2",
      "verify 3",
      "store 0",
      "store 2",
      "publish 0",
      "publish 1",
    ];
    // Again where files move, past the word by a little, another little each time.
    const kills = moments.length + 4;
    let seen = 0;
    for (let round = 0; round < kills; round++) {
      const indexId = idOf(5000 + round);
      const publisher = startPublisher(storage.root, indexId, 1);
      await publisher.said(moments[round] ?? moments[round - 4] ?? "");
      await new Promise((resolve) => setTimeout(resolve, round < moments.length ? 0 : (round * 7) % 12));
      publisher.child.kill("SIGKILL");
      await publisher.exited;
      const listing = await storage.list();
      expect(listing.refused).toEqual([]);
      const visible = listing.indexes.find((index) => index.indexId === indexId);
      if (!visible) continue;
      seen++;
      expect(await storage.verify({ label, indexId })).toEqual(visible.meta);
    }
    expect(seen).toBeLessThan(kills);
    const retry = startPublisher(storage.root, idOf(5000), 2);
    expect(await retry.exited, retry.errors()).toBe(0);
    const { keyed } = await storage.open({ label, indexId: idOf(5000) });
    expect(keyed.count).toBe(300);
    await keyed.close();
    await storage.collect({ nowMs: Date.now() + 16 * 60_000 });
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
  });

  it("I2, I3: two processes that publish one id give exactly one index", async () => {
    const { storage } = await openCounted(tempFolder());
    const indexId = idOf(6000);
    // The first pair has attempts of its own, the second pair the very same one.
    for (const attempts of [
      [1, 2],
      [3, 3],
    ]) {
      const pair = attempts.map((attempt) => startPublisher(storage.root, indexId, attempt));
      const codes = await Promise.all(pair.map((publisher) => publisher.exited));
      expect(codes.includes(0), pair.map((publisher) => publisher.errors()).join("\n")).toBe(true);
      codes.forEach((code, i) => {
        if (code !== 0) expect(pair[i]?.errors()).toMatch(/fenced|replaced by another attempt/);
      });
      expect((await storage.list()).indexes.map((index) => index.indexId)).toEqual([indexId]);
      await storage.verify({ label, indexId });
    }
    expect(existsSync(join(storage.root, ".staging"))).toBe(true);
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
  });
});
