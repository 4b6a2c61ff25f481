import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { eventually } from "@lim/testkit";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type EventStream, eventStreamLimits, openEventStream } from "../src/api/event-stream.ts";
import { followProgress, type ProgressClient } from "./progress-client.ts";

let server: Server;
let client: ProgressClient | undefined;

beforeEach(() => {
  server = createServer();
});
afterEach(async () => {
  client?.leave();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** A stream to one real client. */
async function open(heartbeatMs = 60_000): Promise<{
  stream: EventStream;
  response: ServerResponse;
  client: ProgressClient;
}> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const asked = once(server, "request");
  const following = followProgress(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const response = (await asked)[1] as ServerResponse;
  const stream = openEventStream(response, { "x-own": "1" }, { heartbeatMs });
  client = await following;
  return { stream, response, client };
}

/** A quarter of the limit, so that few of them fill a client's buffers. */
const big = { filler: "x".repeat(eventStreamLimits.maxBufferedBytes / 4) };
const maxOffers = 20_000;

/** Offers until the client's connection takes no more. Returns how many were taken. */
async function fill(stream: EventStream, response: ServerResponse): Promise<number> {
  for (let taken = 0; taken < maxOffers; taken++) {
    if (!stream.offer("progress", { ...big, taken })) return taken;
    // The kernel's buffers take what the loop can hand over before the stream's own fill.
    await new Promise((resolve) => setImmediate(resolve));
    if (response.destroyed) throw new Error("the client left");
  }
  throw new Error("the client never got slow");
}

describe("a stream to a slow client", () => {
  it("I10: holds a bounded number of bytes, drops what came in between and never the end", async () => {
    const { stream, response, client: slow } = await open();
    slow.pause();
    const taken = await fill(stream, response);
    const held = response.writableLength;
    for (let i = 0; i < 100; i++) expect(stream.offer("progress", big)).toBe(false);
    expect(response.writableLength).toBe(held);
    expect(held).toBeLessThan(2 * eventStreamLimits.maxBufferedBytes);
    stream.end("end", { final: true });
    slow.resume();
    await slow.untilClosed();
    expect(slow.events).toHaveLength(taken + 1);
    expect(slow.events.at(-1)).toEqual({ event: "end", data: { final: true } });
  });

  it("takes events again when the client has caught up", async () => {
    const { stream, response, client: slow } = await open();
    slow.pause();
    await fill(stream, response);
    slow.resume();
    await eventually("it takes events", () => (stream.offer("progress", { again: true }) ? true : undefined));
    await slow.untilEvents("again", (events) => events.at(-1)?.data.again === true);
  });

  it("is cut at a shutdown whether it reads or not", async () => {
    const { stream, response, client: slow } = await open();
    slow.pause();
    await fill(stream, response);
    const closed = once(response, "close");
    stream.cut();
    await closed;
    expect(response.writableFinished).toBe(false);
  });
});

describe("a stream", () => {
  it("begins with its head and the pause before a reconnection, and keeps a silent connection alive", async () => {
    const { client: reader } = await open(5);
    expect(reader.headers).toMatchObject({ "x-own": "1", connection: "close" });
    const text = await eventually("comments", () =>
      (reader.text().match(/: still here\n\n/g)?.length ?? 0) >= 2 ? reader.text() : undefined,
    );
    expect(text).toMatch(/^retry: 2000\n\n: still here\n\n/);
    expect(reader.events).toEqual([]);
  });

  it("writes nothing after its end", async () => {
    const { stream, client: reader } = await open();
    stream.end("end", { n: 1 });
    expect(stream.offer("progress", { n: 2 })).toBe(false);
    stream.end("end", { n: 3 });
    stream.cut();
    await reader.untilClosed();
    expect(reader.events).toEqual([{ event: "end", data: { n: 1 } }]);
  });

  it("forgets a client that has gone", async () => {
    const { stream, response, client: gone } = await open(5);
    const closed = once(response, "close");
    gone.leave();
    await closed;
    expect(stream.offer("progress", { n: 1 })).toBe(false);
    stream.end("end", { n: 2 });
  });
});
