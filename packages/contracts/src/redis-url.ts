import { LimError } from "./errors.ts";

export interface HostAndPort {
  host: string;
  port: number;
}

interface Access {
  tls: boolean;
  username?: string;
  password?: string;
}

/** Where Redis is, and of which kind. */
export type RedisTarget = Access &
  (
    | { kind: "single"; nodes: [HostAndPort]; db: number }
    | {
        kind: "sentinel";
        /** The Sentinels; `username` and `password` are those of the servers that they watch. */
        nodes: HostAndPort[];
        /** Under which the Sentinels know the primary. */
        name: string;
        db: number;
        sentinelUsername?: string;
        sentinelPassword?: string;
      }
    /** Some of the nodes; the others are learnt from them. */
    | { kind: "cluster"; nodes: HostAndPort[] }
  );

/** Schemes of a Redis URL, with the colon. */
export const redisProtocols = [
  "redis:",
  "rediss:",
  "redis-sentinel:",
  "rediss-sentinel:",
  "redis-cluster:",
  "rediss-cluster:",
] as const;

export const redisUrlForms =
  "redis://[user:password@]host[:port][/db], redis-sentinel://[user:password@]host[:port][,host[:port]…]/name[?db=…] " +
  "or redis-cluster://[user:password@]host[:port][,host[:port]…]; with TLS the scheme begins with rediss";

const defaultPort = 6379;
const defaultSentinelPort = 26_379;
const maxNodes = 64;
const sentinelOptions = ["db", "sentinel_username", "sentinel_password"];

/**
 * Reads a Redis URL (`redisUrlForms`). What stands in user, password, name and options is percent-encoded. Throws
 * bad_settings; the message never repeats the text, which may hold a password.
 */
export function parseRedisUrl(text: string): RedisTarget {
  const parts = /^(redis(s?)(-sentinel|-cluster)?):\/\/([^/?#]*)(\/[^?#]*)?(\?[^#]*)?$/.exec(text);
  if (!parts) throw refuse(`must read ${redisUrlForms}`);
  const [, , secure, kind = "", authority = "", path = "", query = ""] = parts;
  const at = authority.lastIndexOf("@");
  const access: Access = { tls: secure === "s", ...credentialsOf(authority.slice(0, Math.max(at, 0))) };
  const isSentinel = kind === "-sentinel";
  const nodes = nodesOf(authority.slice(at + 1), isSentinel ? defaultSentinelPort : defaultPort);
  // In a query of a form a plus sign is a blank; here it is itself, as it is in user and password.
  const options = new URLSearchParams(query.replaceAll("+", "%2B"));
  for (const option of options.keys())
    if (!isSentinel || !sentinelOptions.includes(option))
      throw refuse(
        isSentinel ? `knows the options ${sentinelOptions.join(", ")} only` : "takes no option after a ?",
      );
  if (isSentinel) return { kind: "sentinel", ...access, nodes, ...sentinelPartOf(path, options) };
  if (kind === "-cluster") {
    if (path !== "" && path !== "/") throw refuse("has a path, but a Redis Cluster has no databases");
    return { kind: "cluster", ...access, nodes };
  }
  const [only] = nodes;
  if (nodes.length !== 1 || !only)
    throw refuse("names several hosts: use redis-sentinel:// or redis-cluster://");
  return { kind: "single", ...access, nodes: [only], db: databaseOf(path.slice(1)) };
}

/** Scheme, hosts and ports, for messages: never a user or password. */
export function redisPlace(target: RedisTarget): string {
  const hosts = target.nodes.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`);
  const kind = target.kind === "single" ? "" : `-${target.kind}`;
  const name = target.kind === "sentinel" ? `/${target.name}` : "";
  return `redis${target.tls ? "s" : ""}${kind}://${hosts.join(",")}${name}`;
}

function credentialsOf(text: string): { username?: string; password?: string } {
  const colon = text.indexOf(":");
  const username = decoded(colon < 0 ? text : text.slice(0, colon));
  const password = colon < 0 ? "" : decoded(text.slice(colon + 1));
  return { ...(username === "" ? {} : { username }), ...(password === "" ? {} : { password }) };
}

function nodesOf(text: string, port: number): HostAndPort[] {
  const nodes = text.split(",").map((node) => {
    const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(node);
    const host = parts?.[1] ?? parts?.[2];
    const ownPort = parts?.[3] === undefined ? port : Number(parts[3]);
    if (host === undefined || ownPort < 1 || ownPort > 65_535)
      throw refuse("needs a host, and a port from 1 to 65535 where it names one, for each server");
    return { host, port: ownPort };
  });
  if (nodes.length > maxNodes) throw refuse(`names more than ${maxNodes} servers`);
  return nodes;
}

function sentinelPartOf(path: string, options: URLSearchParams) {
  const name = decoded(path.slice(1));
  if (name === "" || name.includes("/"))
    throw refuse(
      "needs the name under which the Sentinels know the primary: redis-sentinel://host:port/name",
    );
  const username = options.get("sentinel_username");
  const password = options.get("sentinel_password");
  return {
    name,
    db: databaseOf(options.get("db") ?? ""),
    ...(username === null ? {} : { sentinelUsername: username }),
    ...(password === null ? {} : { sentinelPassword: password }),
  };
}

function databaseOf(text: string): number {
  if (!/^\d{0,4}$/.test(text)) throw refuse("names a database that is not a number");
  return Number(text);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refuse("has a % that is no percent-encoding: write %25 for the sign itself");
  }
}

function refuse(what: string): LimError {
  return new LimError("bad_settings", `the Redis URL ${what}`);
}
