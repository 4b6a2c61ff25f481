import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** A TCP proxy in front of a server of 127.0.0.1 that plays a bad network. */
export interface FlakyProxy {
  readonly port: number;
  /** Connections that are open now. */
  readonly connections: number;
  /** Bytes stop in both directions, connections stay open and new ones hang: a lost route. */
  pause(): void;
  /** Resets every connection and refuses new ones: a dead server. */
  cut(): void;
  /** Back to normal; what `pause` held back goes on its way. */
  resume(): void;
  close(): Promise<void>;
}

export async function startFlakyProxy(targetPort: number): Promise<FlakyProxy> {
  const pairs = new Set<{ client: Socket; server: Socket }>();
  let state: "open" | "paused" | "cut" = "open";
  const listener = createServer((client) => {
    if (state === "cut") {
      client.on("error", () => {});
      client.resetAndDestroy();
      return;
    }
    const server = connect(targetPort, "127.0.0.1");
    const pair = { client, server };
    pairs.add(pair);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.setNoDelay(true);
      from.on("data", (chunk) => {
        if (to.writable && !to.write(chunk)) from.pause();
      });
      to.on("drain", () => {
        if (state !== "paused") from.resume();
      });
      from.on("end", () => to.end());
      // An error is followed by close, and one side's close ends the other.
      from.on("error", () => {});
      from.on("close", () => {
        to.destroy();
        pairs.delete(pair);
      });
      if (state === "paused") from.pause();
    }
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  const each = (act: (socket: Socket) => void) => {
    for (const { client, server } of [...pairs]) {
      act(client);
      act(server);
    }
  };
  return {
    port: address.port,
    get connections() {
      return pairs.size;
    },
    pause() {
      state = "paused";
      each((socket) => socket.pause());
    },
    cut() {
      state = "cut";
      each((socket) => socket.resetAndDestroy());
    },
    resume() {
      state = "open";
      each((socket) => socket.resume());
    },
    async close() {
      state = "cut";
      each((socket) => socket.destroy());
      listener.close();
      await once(listener, "close");
    },
  };
}
