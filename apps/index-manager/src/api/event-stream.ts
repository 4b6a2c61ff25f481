import type { ServerResponse } from "node:http";

export const eventStreamLimits = {
  /** Bytes that wait for one client; above it what can be left out is left out. */
  maxBufferedBytes: 64 * 1024,
  /** How long a stream that ended waits for a client that reads slowly or not at all, and how long at a shutdown. */
  lingerMs: 60_000,
  lingerAtShutdownMs: 2_000,
  /** What clients are told to wait before they connect again. */
  retryMs: 2_000,
} as const;

/** Server-sent events to one client. Once the client has left or the stream has ended, nothing more is written. */
export interface EventStream {
  /** False where it was left out because too much waits for the client already. */
  offer(event: string, data: object): boolean;
  /** Written however much waits; then the stream closes. */
  end(event: string, data: object): void;
  /** Closes without an event, for a shutdown: the client connects again. */
  cut(): void;
}

/**
 * Writes the head and the pause before a reconnection at once; a comment whenever nothing was written for
 * `heartbeatMs`. The connection ends with the stream: a shutdown then has nothing to wait for.
 */
export function openEventStream(
  response: ServerResponse,
  headers: Record<string, number | string | string[] | undefined>,
  options: { heartbeatMs: number },
): EventStream {
  const { maxBufferedBytes, lingerMs, lingerAtShutdownMs } = eventStreamLimits;
  const isOver = () => response.writableEnded || response.destroyed;
  const isFull = () => response.writableLength > maxBufferedBytes;
  const write = (text: string) => {
    heartbeat.refresh();
    response.write(text);
  };
  const heartbeat = setInterval(() => {
    if (!isOver() && !isFull()) response.write(": still here\n\n");
  }, options.heartbeatMs);
  const destroyAfter = (ms: number) => {
    const timer = setTimeout(() => response.destroy(), ms);
    response.once("close", () => clearTimeout(timer));
  };
  response.once("close", () => clearInterval(heartbeat));
  // A connection that breaks is told by "close"; the error itself is of no use to anyone.
  response.on("error", () => {});
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) response.setHeader(name, value);
  response.writeHead(200, {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    Connection: "close",
  });
  response.socket?.setNoDelay(true);
  write(`retry: ${eventStreamLimits.retryMs}\n\n`);
  return {
    offer(event, data) {
      if (isOver() || isFull()) return false;
      write(textOf(event, data));
      return true;
    },
    end(event, data) {
      if (isOver()) return;
      response.end(textOf(event, data));
      destroyAfter(lingerMs);
    },
    cut() {
      if (!isOver()) response.end();
      destroyAfter(lingerAtShutdownMs);
    },
  };
}

/** JSON has no line break in it, so one `data` line holds it. */
const textOf = (event: string, data: object) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
