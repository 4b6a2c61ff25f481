import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { createTestDatabase } from "@lim/testkit";
import { expect, it } from "vitest";
import { openFacesDb } from "../src/index.ts";

const readyForQuery = Buffer.from("Z\0\0\0\x05I", "latin1");

/** As the server says it that is told to stop. */
function farewell(): Buffer {
  const fields = ["SFATAL", "VFATAL", "C57P01", "Mterminating connection due to administrator command", ""];
  const body = Buffer.from(`${fields.join("\0")}\0`, "latin1");
  const head = Buffer.alloc(5);
  head.write("E", "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** Connections reach the server, and are closed by it in the very moment that they are ready. */
async function startLeavingServer(port: number): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const listener = createServer((client) => {
    const server = connect(port, "127.0.0.1");
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on("error", () => {});
    }
    client.pipe(server);
    server.on("data", (bytes) => {
      if (!bytes.subarray(-readyForQuery.length).equals(readyForQuery)) client.write(bytes);
      else client.end(Buffer.concat([bytes, farewell()]));
    });
    server.on("close", () => client.destroy());
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  return {
    port: (listener.address() as AddressInfo).port,
    async close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, "close");
    },
  };
}

it("a connection that ends in the moment it is handed out is an error of its user, not of the process", async () => {
  const database = await createTestDatabase();
  const url = new URL(database.url);
  const leaving = await startLeavingServer(Number(url.port || 5432));
  url.hostname = "127.0.0.1";
  url.port = String(leaving.port);
  const db = openFacesDb({ connectionString: url.href });
  const uncaught: unknown[] = [];
  const note = (thrown: unknown) => uncaught.push(thrown);
  process.on("uncaughtException", note);
  try {
    for (let i = 0; i < 3; i++)
      await expect(db.ping()).rejects.toMatchObject({ errorName: "postgres_unavailable" });
  } finally {
    process.off("uncaughtException", note);
    await db.close();
    await leaving.close();
    await database.drop();
  }
  expect(uncaught).toEqual([]);
});
