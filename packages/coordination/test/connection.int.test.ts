import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { blockingClient, commandClient, connectRedis } from "../src/connection.ts";
import { loadScript, runScript } from "../src/lua.ts";
import { type RedisFixture, startFixture } from "./support.ts";

let fixture: RedisFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());

/** Of what takes a second or two: a busy machine keeps it, the client library's own limits and BLOCKs (over a minute) do not. */
const soonMs = 30_000;

const echo = loadScript("registration_remove", Number);

async function failuresAndLog(url: string): Promise<{ failures: unknown[]; lines: string }> {
  const lines: string[] = [];
  const note = (...words: unknown[]) => void lines.push(JSON.stringify(words));
  const log = { debug: note, info: note, warn: note, error: note };
  const redis = connectRedis({ url, name: "nobody", log });
  const failures = await Promise.all(
    [redis.ping(), redis.time()].map((work) => work.catch((error: unknown) => error)),
  );
  await redis.close();
  return { failures, lines: lines.join() };
}

describe("connection", () => {
  it("measures how far the local clock is ahead", async () => {
    const before = Date.now();
    const { redisMs, localAheadMs } = await fixture.connect().time();
    const after = Date.now();
    // The same machine's clock: only the round trip's half is unknown.
    expect(Math.abs(localAheadMs)).toBeLessThan((after - before) / 2 + 5);
    expect(redisMs).toBeGreaterThan(before - 5);
    expect(redisMs).toBeLessThan(after + 5);
  });

  it("refuses a server that evicts keys, and names the remedy", async () => {
    const redis = fixture.connect();
    expect((await redis.checkServer()).version).toMatch(/^\d+\.\d+/);
    await fixture.raw.config("SET", "maxmemory-policy", "allkeys-lru");
    await expect(redis.checkServer()).rejects.toMatchObject({
      errorName: "bad_settings",
      detail: expect.stringContaining("CONFIG SET maxmemory-policy noeviction"),
    });
    await fixture.raw.config("SET", "maxmemory-policy", "noeviction");
    await redis.checkServer();
  });

  it("fails soon and without the password where no server listens, of whatever kind", async () => {
    const urls = [
      "redis://user:s3cret@127.0.0.1:1",
      "redis-sentinel://user:s3cret@127.0.0.1:1,127.0.0.1:2/lim?sentinel_password=s3cret",
      "redis-cluster://user:s3cret@127.0.0.1:1,127.0.0.1:2",
    ];
    const started = performance.now();
    const said = await Promise.all(urls.map(failuresAndLog));
    expect(performance.now() - started).toBeLessThan(soonMs);
    for (const { failures, lines } of said) {
      for (const failure of failures) {
        expect(failure).toMatchObject({ errorName: "redis_unavailable" });
        expect(JSON.stringify(failure) + String(failure) + (failure as Error).stack).not.toContain("s3cret");
      }
      expect(lines).toContain("not reachable");
      expect(lines).not.toContain("s3cret");
    }
  });

  it("does not repeat a wrong password in its message", async () => {
    const url = new URL(fixture.url);
    url.username = "default";
    url.password = "s3cret";
    await fixture.raw.config("SET", "requirepass", "right");
    const redis = connectRedis({ url: url.href, name: "stranger" });
    const failure = await redis.ping().catch((error: unknown) => error);
    await fixture.raw.config("SET", "requirepass", "");
    expect(failure).toMatchObject({ errorName: "bad_settings" });
    expect(JSON.stringify(failure) + String(failure)).not.toContain("s3cret");
    await redis.close();
  });

  it.each(["", "http://127.0.0.1:6379", "redis:", "redis://s3cret@:99999999", "redis://h/base"])(
    "refuses the URL %j without repeating it",
    (url) => {
      let failure: unknown;
      try {
        connectRedis({ url, name: "x" });
      } catch (thrown) {
        failure = thrown;
      }
      expect(failure).toMatchObject({ errorName: "bad_settings" });
      expect(String(failure)).not.toContain("s3cret");
    },
  );

  it("is given up on abort while the server is silent, and in bounded time without", async () => {
    const sockets = new Set<Socket>();
    const silent: Server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
    });
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const address = silent.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const redis = connectRedis({ url: `redis://127.0.0.1:${port}`, name: "silent" });
    const controller = new AbortController();
    const aborted = redis.ping({ signal: controller.signal });
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ errorName: "aborted" });
    const started = performance.now();
    await expect(redis.time()).rejects.toMatchObject({ errorName: "redis_unavailable" });
    expect(performance.now() - started).toBeLessThan(soonMs);
    await redis.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
  });

  it("speaks TLS to Sentinels too where the URL says so", async () => {
    const server = createServer();
    const firstByte = new Promise<number | undefined>((resolve) =>
      server.once("connection", (socket) => {
        socket.on("error", () => undefined);
        socket.once("data", (bytes) => {
          resolve(bytes[0]);
          socket.destroy();
        });
      }),
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const redis = connectRedis({
      url: `rediss-sentinel://127.0.0.1:${port}/lim?sentinel_password=x`,
      name: "tls",
    });
    const handshake = 22;
    expect(await firstByte).toBe(handshake);
    await redis.close();
    await new Promise((resolve) => server.close(resolve));
  });

  it("serves again after the server restarted, scripts included (I9)", async () => {
    const redis = fixture.connect();
    const call = () =>
      runScript(commandClient(redis), echo, { keys: ["lim_indexer__nobody"], args: ["nothing"] });
    expect(await call()).toBe(0);
    await fixture.restart();
    await eventually("the connection is back", async () => {
      await redis.ping();
      return true;
    });
    expect(await call()).toBe(0);
  });

  it("closes its blocking clients at once, in the middle of a BLOCK", async () => {
    const redis = fixture.connect();
    const reader = blockingClient(redis, "reader", 60_000, "nothing-ever");
    const block = reader.blpop("nothing-ever", 60).catch((error: unknown) => error);
    await eventually("the reader blocks", async () =>
      (await fixture.raw.info("clients")).includes("blocked_clients:1") ? true : undefined,
    );
    await commandClient(redis).ping();
    const started = performance.now();
    await redis.close();
    expect(await block).toBeInstanceOf(Error);
    expect(performance.now() - started).toBeLessThan(soonMs);
    await expect(redis.ping()).rejects.toMatchObject({ errorName: "redis_unavailable" });
  });
});
