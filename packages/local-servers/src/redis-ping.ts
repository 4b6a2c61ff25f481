import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { type HostAndPort, LimError, parseRedisUrl, type RedisTarget } from "@lim/contracts";

/**
 * PING (after AUTH where the URL has a password) over a connection of its own; throws redis_unavailable. Of Sentinels
 * and of a Cluster's nodes the first that answers will do.
 */
export async function pingRedis(url: string, timeoutMs: number): Promise<void> {
  const target = parseRedisUrl(url);
  let failure: unknown;
  for (const node of target.nodes) {
    try {
      const replies = await exchange(node, target, [["PING"]], timeoutMs);
      if (replies.at(-1) !== "PONG")
        throw new LimError(
          "redis_unavailable",
          `${placeOf(node)} is not a Redis server: it answered PING otherwise`,
        );
      return;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** Sends one command to a server of 127.0.0.1; its reply as text. Throws redis_unavailable, also for an error reply. */
export async function askRedis(port: number, words: readonly string[], timeoutMs = 5_000): Promise<string> {
  const node = { host: "127.0.0.1", port };
  const [reply = ""] = await exchange(node, { tls: false }, [words], timeoutMs);
  return reply;
}

const placeOf = ({ host, port }: HostAndPort) => `${host}:${port}`;

/** Commands, after AUTH where there is a password, and their replies: lines, numbers or texts. */
async function exchange(
  node: HostAndPort,
  access: Pick<RedisTarget, "tls" | "username" | "password">,
  commands: readonly (readonly string[])[],
  timeoutMs: number,
): Promise<string[]> {
  const auth = authOf(access);
  const all = auth ? [auth, ...commands] : commands;
  const lines = await converse(node, access.tls, all, timeoutMs).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LimError("redis_unavailable", `${placeOf(node)} does not answer: ${reason}`, { cause: error });
  });
  const refusal = lines.find((line) => line.startsWith("-"));
  if (refusal !== undefined)
    throw new LimError("redis_unavailable", `${placeOf(node)} refused: ${refusal.slice(1)}`);
  return lines.map((line) => line.slice(1));
}

function authOf(
  access: Pick<RedisTarget, "username" | "password"> & { kind?: string },
): string[] | undefined {
  if (access.kind === "sentinel") {
    const { sentinelUsername, sentinelPassword } = access as RedisTarget & { kind: "sentinel" };
    return sentinelPassword === undefined
      ? undefined
      : ["AUTH", ...(sentinelUsername === undefined ? [] : [sentinelUsername]), sentinelPassword];
  }
  if (access.password === undefined) return undefined;
  return ["AUTH", ...(access.username === undefined ? [] : [access.username]), access.password];
}

/** Resolves with one reply for each command: its kind's sign, then what it says. */
function converse(
  { host, port }: HostAndPort,
  tls: boolean,
  commands: readonly (readonly string[])[],
  timeoutMs: number,
): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const socket: Socket = tls ? connectTls({ host, port, servername: host }) : connectTcp({ host, port });
    let received = "";
    const settle = (finish: () => void) => {
      clearTimeout(timer);
      socket.destroy();
      finish();
    };
    const timer = setTimeout(
      () => settle(() => reject(new Error(`no answer within ${timeoutMs} ms`))),
      timeoutMs,
    );
    socket.once(tls ? "secureConnect" : "connect", () => {
      for (const words of commands)
        socket.write(
          `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`,
        );
    });
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
      const replies = repliesOf(received);
      if (replies.length >= commands.length || received.length > maxReplyBytes)
        settle(() => resolve(replies.slice(0, commands.length)));
    });
    socket.once("error", (error) => settle(() => reject(error)));
    socket.once("close", () => settle(() => reject(new Error("the connection was closed"))));
  });
}

/** The whole replies at the beginning of what was received. */
function repliesOf(received: string): string[] {
  const replies: string[] = [];
  for (let at = 0; ; ) {
    const end = received.indexOf("\r\n", at);
    if (end < 0) return replies;
    let reply = received.slice(at, end);
    at = end + 2;
    if (reply.startsWith("$")) {
      const length = Number(reply.slice(1));
      if (received.length < at + length + 2) return replies;
      reply = `$${received.slice(at, at + length)}`;
      at += length + 2;
    }
    replies.push(reply);
  }
}

/** Something that is not Redis may talk without end. */
const maxReplyBytes = 65_536;
