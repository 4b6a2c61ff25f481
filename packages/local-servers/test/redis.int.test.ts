import { once } from "node:events";
import { createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { startRedis } from "../src/index.ts";
import { isAlive, withFolder } from "./helpers.ts";

const path = process.env.PATH;
afterEach(() => {
  process.env.PATH = path;
});

describe("startRedis", () => {
  it("starts a private server that answers, and stops it", () =>
    withFolder(async (dir) => {
      const redis = await startRedis({ dir });
      const found = await startRedis({ dir, url: redis.url });
      expect(found).toMatchObject({ url: redis.url, pids: [] });
      await found.stop();
      expect(redis.pids.every(isAlive)).toBe(true);
      await redis.stop();
      await redis.stop();
      expect(redis.pids.some(isAlive)).toBe(false);
      await expect(startRedis({ dir, url: redis.url })).rejects.toMatchObject({
        errorName: "redis_unavailable",
      });
    }));

  it("sends the user and the password of the URL, and never names them in an error", () =>
    withFolder(async (dir) => {
      const redis = await startRedis({ dir, extraArgs: ["--user", "app", "on", ">s3cret", "~*", "+@all"] });
      try {
        const as = (credentials: string) => redis.url.replace("//", `//${credentials}@`);
        expect((await startRedis({ dir, url: as("app:s3cret") })).pids).toEqual([]);
        const wrong = startRedis({ dir, url: as("app:gu3ss") });
        await expect(wrong).rejects.toMatchObject({ errorName: "redis_unavailable" });
        await expect(wrong).rejects.not.toThrow(/gu3ss/);
      } finally {
        await redis.stop();
      }
    }));

  it("says what to install where there is no server", () =>
    withFolder(async (dir) => {
      process.env.PATH = dir;
      await expect(startRedis({ dir })).rejects.toMatchObject({
        errorName: "bad_settings",
        detail: expect.stringMatching(/apt-get install redis-server.*brew install redis.*REDIS_URL/s),
      });
    }));

  it("shows the end of the log when the server dies at its start", () =>
    withFolder(async (dir) => {
      await expect(startRedis({ dir, extraArgs: ["--no-such-setting", "1"] })).rejects.toMatchObject({
        errorName: "bad_settings",
        detail: expect.stringMatching(/no-such-setting/),
      });
    }));

  it("does not take a stranger on its port for its own server", () =>
    withFolder(async (dir) => {
      const first = await startRedis({ dir });
      try {
        const port = Number(new URL(first.url).port);
        await expect(startRedis({ dir, port })).rejects.toThrow(/address already in use/i);
        expect(first.pids.every(isAlive)).toBe(true);
      } finally {
        await first.stop();
      }
    }));

  it("refuses what is not Redis, or never answers", () =>
    withFolder(async (dir) => {
      const talker = createServer((socket) => socket.on("error", () => {}).write("HTTP/1.1 400 Bad\r\n\r\n"));
      await once(talker.listen(0, "127.0.0.1"), "listening");
      const address = talker.address();
      const port = typeof address === "object" && address ? address.port : 0;
      try {
        await expect(startRedis({ dir, url: `redis://127.0.0.1:${port}` })).rejects.toThrow(
          /not a Redis server/,
        );
        await expect(startRedis({ dir, url: "127.0.0.1" })).rejects.toMatchObject({
          errorName: "bad_settings",
        });
      } finally {
        talker.close();
      }
    }));
});
