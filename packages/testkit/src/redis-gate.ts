import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** A command on its way from a client to Redis: its words, the name in capital letters. */
export interface RedisCommand {
  name: string;
  args: readonly string[];
}

/**
 * What becomes of a command. `forward` sends it on, at once or when the promise resolves: till then the later ones of
 * its connection wait. `drop` ends the connection without it.
 */
export type GateDecision = "forward" | "drop" | Promise<"forward" | "drop">;

/** A proxy in front of a Redis of 127.0.0.1 that sees every command before the server does. */
export interface RedisGate {
  readonly url: string;
  /** Asked about every command from now on; undefined lets all pass. */
  onCommand(decide: ((command: RedisCommand) => GateDecision) | undefined): void;
  close(): Promise<void>;
}

export async function startRedisGate(redisUrl: string): Promise<RedisGate> {
  const target = Number(new URL(redisUrl).port);
  const sockets = new Set<Socket>();
  let decide: ((command: RedisCommand) => GateDecision) | undefined;
  const serve = (client: Socket) => {
    const server = connect(target, "127.0.0.1");
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        // What a client sent before it died goes on its way: a command held here comes late, not never.
        if (socket === server) other.destroy();
      });
    }
    server.pipe(client, { end: false });
    const commands = commandReader();
    let sending = Promise.resolve();
    client.on("data", (chunk) => {
      for (const { bytes, command } of commands(chunk))
        sending = sending.then(async () => {
          if (server.destroyed) return;
          if (decide && command && (await decide(command)) === "drop") {
            client.destroy();
            server.destroy();
          } else server.write(bytes);
        });
    });
    client.on("end", () => {
      sending = sending.then(() => void server.end());
    });
  };
  const listener = createServer(serve);
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  return {
    url: `redis://127.0.0.1:${address.port}`,
    onCommand(next) {
      decide = next;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, "close");
    },
  };
}

/** Cuts a client's bytes into commands (arrays of bulk strings, as every client library sends them). */
function commandReader(): (chunk: Buffer) => { bytes: Buffer; command: RedisCommand | undefined }[] {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const found: { bytes: Buffer; command: RedisCommand | undefined }[] = [];
    for (let one = readCommand(rest); one; one = readCommand(rest)) {
      const [name = "", ...args] = one.words;
      found.push({ bytes: rest.subarray(0, one.end), command: { name: name.toUpperCase(), args } });
      rest = rest.subarray(one.end);
    }
    return found;
  };
}

/** The first whole command; undefined where its end has not come yet. */
function readCommand(bytes: Buffer): { words: string[]; end: number } | undefined {
  const lineEnd = (from: number) => bytes.indexOf("\r\n", from);
  const head = lineEnd(0);
  if (head < 0) return undefined;
  if (bytes[0] !== 0x2a) throw new Error("the client sent an inline command, which the gate does not read");
  const count = Number(bytes.toString("latin1", 1, head));
  const words: string[] = [];
  let at = head + 2;
  for (let i = 0; i < count; i++) {
    const sizeEnd = lineEnd(at);
    if (sizeEnd < 0) return undefined;
    const size = Number(bytes.toString("latin1", at + 1, sizeEnd));
    const start = sizeEnd + 2;
    if (bytes.length < start + size + 2) return undefined;
    words.push(bytes.toString("utf8", start, start + size));
    at = start + size + 2;
  }
  return { words, end: at };
}
