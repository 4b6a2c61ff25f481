import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { LimError } from "@lim/contracts";

/** PING (after AUTH where the URL has a password) over a connection of its own; throws redis_unavailable. */
export async function pingRedis(url: string, timeoutMs: number): Promise<void> {
  const target = parseRedisUrl(url);
  const commands = [...(target.auth ? [["AUTH", ...target.auth]] : []), ["PING"]];
  const place = `${target.host}:${target.port}`;
  const replies = await exchange(target, commands, timeoutMs).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LimError("redis_unavailable", `${place} does not answer: ${reason}`, { cause: error });
  });
  const refusal = replies.find((reply) => reply.startsWith("-"));
  if (refusal !== undefined) throw new LimError("redis_unavailable", `${place} refused: ${refusal.slice(1)}`);
  if (replies.at(-1) !== "+PONG")
    throw new LimError("redis_unavailable", `${place} is not a Redis server: it answered PING otherwise`);
}

interface RedisTarget {
  host: string;
  port: number;
  tls: boolean;
  auth?: string[];
}

function parseRedisUrl(url: string): RedisTarget {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch (error) {
    throw new LimError("bad_settings", "the Redis URL is not a URL like redis://host:6379", { cause: error });
  }
  if (parsed.protocol !== "redis:" && parsed.protocol !== "rediss:")
    throw new LimError(
      "bad_settings",
      `the Redis URL must begin with redis:// or rediss://, not ${parsed.protocol}//`,
    );
  const user = decodeURIComponent(parsed.username);
  const password = decodeURIComponent(parsed.password);
  return {
    host: parsed.hostname.replace(/^\[(.*)\]$/, "$1") || "127.0.0.1",
    port: parsed.port === "" ? 6379 : Number(parsed.port),
    tls: parsed.protocol === "rediss:",
    ...(password === "" ? {} : { auth: user === "" ? [password] : [user, password] }),
  };
}

/** Sends commands whose replies are single lines; resolves with one line for each. */
function exchange(target: RedisTarget, commands: string[][], timeoutMs: number): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const { host, port } = target;
    const socket: Socket = target.tls
      ? connectTls({ host, port, servername: host })
      : connectTcp({ host, port });
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
    socket.once(target.tls ? "secureConnect" : "connect", () => {
      for (const words of commands)
        socket.write(
          `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`,
        );
    });
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
      const lines = received.split("\r\n");
      if (lines.length > commands.length || received.length > maxReplyBytes)
        settle(() => resolve(lines.slice(0, commands.length)));
    });
    socket.once("error", (error) => settle(() => reject(error)));
    socket.once("close", () => settle(() => reject(new Error("the connection was closed"))));
  });
}

/** Something that is not Redis may talk without end. */
const maxReplyBytes = 4_096;
