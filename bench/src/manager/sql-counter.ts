import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** Statements that passed since the last reset: their texts, cut, with their number. */
export interface SqlCounter {
  /** Of Postgres, through the counter. */
  url: string;
  total(): number;
  byText(): { text: string; count: number }[];
  reset(): void;
  close(): Promise<void>;
}

const startupProtocol = 196_608;
const shownChars = 110;

/** Forwards connections to Postgres and counts what its clients execute, by reading the client's half of the protocol. */
export async function startSqlCounter(postgresUrl: string): Promise<SqlCounter> {
  const target = new URL(postgresUrl);
  const counts = new Map<string, number>();
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(target.port || 5432), target.hostname);
    const read = createReader((text) => counts.set(text, (counts.get(text) ?? 0) + 1));
    client.on("data", read);
    client.pipe(upstream).pipe(client);
    for (const [socket, peer] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => peer.destroy());
      socket.on("close", () => {
        sockets.delete(socket);
        peer.destroy();
      });
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const own = new URL(postgresUrl);
  own.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url: own.href,
    total: () => [...counts.values()].reduce((sum, count) => sum + count, 0),
    byText: () => [...counts].map(([text, count]) => ({ text, count })).toSorted((a, b) => b.count - a.count),
    reset: () => counts.clear(),
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** Reads messages of one client; calls `execute` with the text of each statement that it executes. */
function createReader(execute: (text: string) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  let started = false;
  const prepared = new Map<string, string>();
  let bound = "";
  const take = (type: string, body: Buffer) => {
    if (type === "Q") execute(shown(body.toString("utf8", 0, body.length - 1)));
    if (type === "P") {
      const [name = "", text = ""] = cStrings(body, 2);
      prepared.set(name, shown(text));
    }
    if (type === "B") bound = prepared.get(cStrings(body, 2)[1] ?? "") ?? "unknown";
    if (type === "E") execute(bound);
  };
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    // Before the start-up message of the protocol itself there may be requests for encryption; none has a type.
    while (!started && rest.length >= 8 && rest.length >= rest.readUInt32BE(0)) {
      started = rest.readUInt32BE(4) === startupProtocol;
      rest = rest.subarray(rest.readUInt32BE(0));
    }
    while (started && rest.length >= 5 && rest.length > rest.readUInt32BE(1)) {
      const end = 1 + rest.readUInt32BE(1);
      take(String.fromCharCode(rest[0] ?? 0), rest.subarray(5, end));
      rest = rest.subarray(end);
    }
  };
}

function cStrings(body: Buffer, count: number): string[] {
  const texts: string[] = [];
  for (let start = 0; texts.length < count; ) {
    const end = body.indexOf(0, start);
    if (end < 0) break;
    texts.push(body.toString("utf8", start, end));
    start = end + 1;
  }
  return texts;
}

const shown = (text: string) => text.replaceAll(/\s+/g, " ").trim().slice(0, shownChars);
