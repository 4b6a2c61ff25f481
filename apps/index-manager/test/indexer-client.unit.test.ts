import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { createIndexerClient } from "../src/indexer-client.ts";

let close: (() => void) | undefined;
afterEach(() => close?.());

/** A server that is not what an indexer should be. */
async function answering(status: number, body: string): Promise<string> {
  const server = createServer((_, response) => response.writeHead(status).end(body));
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
