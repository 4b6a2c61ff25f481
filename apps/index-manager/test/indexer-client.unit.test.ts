import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { createIndexerClient } from "../src/indexer-client.ts";

let close: (() => void) | undefined;
let heard: (string | undefined)[] = [];
afterEach(() => {
  close?.();
  heard = [];
});

/** A server that is not what an indexer should be. */
async function answering(status: number, body: string): Promise<string> {
  const server = createServer((request, response) => {
    heard.push(request.headers.authorization);
    response.writeHead(status).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  close = () => server.close();
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe("asking an indexer for its state, each second", () => {
  it.each([
    ["refuses", 404, "{}"],
    ["tells what is no state", 200, "{}"],
    ["tells no JSON", 200, "<html>"],
    ["tells too much", 200, `"${"x".repeat(1_100_000)}"`],
  ])("takes one that %s for silent, and adds no line to the log", async (_, status, body) => {
    const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
    const client = createIndexerClient(log);
    const origin = await answering(status, body);
    expect(await client.state(origin, new AbortController().signal)).toBeUndefined();
    expect(log.info).not.toHaveBeenCalled();
    expect(log.warn).not.toHaveBeenCalled();
    expect(log.error).not.toHaveBeenCalled();
  });
});

describe("every question and command", () => {
  const quiet = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
  const never = new AbortController().signal;
  const build = {} as Parameters<ReturnType<typeof createIndexerClient>["build"]>[1];
  const stop = {} as Parameters<ReturnType<typeof createIndexerClient>["stop"]>[1];

  it.each([
    ["the token, where there is one", "a-token-of-this-test", "Bearer a-token-of-this-test"],
    ["none, where there is none", undefined, undefined],
  ])("bears %s", async (_, token, header) => {
    const origin = await answering(200, "{}");
    const client = createIndexerClient(quiet, token);
    await client.state(origin, never);
    await client.build(origin, build, never);
    await client.stop(origin, stop, never);
    expect(heard).toEqual([header, header, header]);
  });
});

describe("telling an indexer to build", () => {
  const quiet = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
  const request = {
    task_id: "00000000-0000-4000-8000-000000000001",
    list_id: "00000000-0000-4000-8000-000000000002",
    attempt: 1,
    epoch: 1,
    mode: "rebuild" as const,
    engine: "hnsw" as const,
    params: { m: 16, ef_construction: 200 },
    descriptor_version: 1,
    dim: 8,
  };
  const told = (origin: string) =>
    createIndexerClient(quiet).build(origin, request, new AbortController().signal);
  const busy = JSON.stringify({ error_code: 26101, desc: "busy", detail: "another" });

  it.each([
    ["an indexer's own refusal", 409, busy, true],
    ["an indexer's overload", 503, busy, true],
    ["an indexer's internal error", 500, busy, false],
    ["a proxy's refusal", 409, "<html>", false],
    ["a proxy's error", 502, "<html>", false],
  ])("takes %s for what it is: HTTP %i", async (_, status, body, certain) => {
    expect(await told(await answering(status, body))).toMatchObject({ sent: false, certain });
  });

  it("knows that one which is not there was not told", async () => {
    const origin = await answering(200, "{}");
    close?.();
    expect(await told(origin)).toMatchObject({ sent: false, certain: true });
  });
});
