import { once } from "node:events";
import { connect, type Socket } from "node:net";

export type RespValue = string | number | null | RespValue[];

/** A connection that speaks Redis' wire format and knows nothing of LIM or of a client library. */
export interface PlainConnection {
  /** One command, and its reply or, after SUBSCRIBE, the next message. Throws what the server answers as an error. */
  command(...words: (string | Buffer)[]): Promise<RespValue>;
  /** The next thing the server sends. */
  next(): Promise<RespValue>;
  close(): void;
}

export async function openPlainConnection(redisUrl: string): Promise<PlainConnection> {
  const { hostname, port } = new URL(redisUrl);
  const socket: Socket = connect(Number(port), hostname);
  await once(socket, "connect");
  let bytes = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
  });
  const next = async (): Promise<RespValue> => {
    for (;;) {
      const read = readValue(bytes, 0);
      if (read) {
        bytes = bytes.subarray(read.end);
        if (read.value instanceof Error) throw read.value;
        return read.value;
      }
      await once(socket, "data");
    }
  };
  return {
    next,
    command(...words) {
      const parts: Buffer[] = [Buffer.from(`*${words.length}\r\n`)];
      for (const word of words) {
        const body = Buffer.from(word);
        parts.push(Buffer.from(`$${body.length}\r\n`), body, Buffer.from("\r\n"));
      }
      socket.write(Buffer.concat(parts));
      return next();
    },
    close: () => socket.destroy(),
  };
}

/** Undefined where the value's end has not come yet. */
function readValue(bytes: Buffer, at: number): { value: RespValue | Error; end: number } | undefined {
  const lineEnd = bytes.indexOf("\r\n", at);
  if (lineEnd < 0) return undefined;
  const kind = String.fromCharCode(bytes[at] ?? 0);
  const line = bytes.toString("utf8", at + 1, lineEnd);
  const end = lineEnd + 2;
  if (kind === "+") return { value: line, end };
  if (kind === "-") return { value: new Error(line), end };
  if (kind === ":") return { value: Number(line), end };
  const size = Number(line);
  if (size < 0) return { value: null, end };
  if (kind === "$") {
    if (bytes.length < end + size + 2) return undefined;
    return { value: bytes.toString("utf8", end, end + size), end: end + size + 2 };
  }
  if (kind !== "*") throw new Error(`not read here: ${kind}${line}`);
  const items: RespValue[] = [];
  let from = end;
  for (let i = 0; i < size; i++) {
    const item = readValue(bytes, from);
    if (!item) return undefined;
    if (item.value instanceof Error) throw item.value;
    items.push(item.value);
    from = item.end;
  }
  return { value: items, end: from };
}
