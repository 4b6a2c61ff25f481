import { LimError } from "@lim/contracts";
import type { Cluster, Redis } from "ioredis";

/** XAUTOCLAIM names lost entries only from here on. */
const minMajorVersion = 7;
/** Requests expire by the clock of the node that they lie on, reckoned by any node's. */
const maxNodeClockGapMs = 1_000;

/** One server, or the one that Sentinel names. INFO holds all of it, so no right to CONFIG is needed. */
export async function checkSingle(client: Redis, place: string): Promise<{ version: string }> {
  const fields = fieldsOf(await client.info());
  if (fields.get("redis_mode") === "sentinel")
    throw new LimError(
      "bad_settings",
      `${place} is a Sentinel; name it as redis-sentinel://host:port/name, with the name of the primary that it watches`,
    );
  if (fields.get("redis_mode") === "cluster")
    throw new LimError("bad_settings", `${place} is a node of a Redis Cluster; name it as redis-cluster://`);
  return judgeServer(fields, place);
}

/** Every node that serves slots. The version is the oldest of all. */
export async function checkCluster(cluster: Cluster, place: string): Promise<{ version: string }> {
  await checkState(cluster, place);
  const masters = cluster.nodes("master");
  const found = await Promise.all(
    masters.map(async (node) => {
      const nodePlace = `${node.options.host}:${node.options.port}`;
      const { version } = judgeServer(fieldsOf(await node.info()), nodePlace);
      return { version, nodePlace, ahead: await clockOf(node) };
    }),
  );
  for (const one of found)
    for (const other of found)
      if (one.ahead.leastMs - other.ahead.mostMs > maxNodeClockGapMs)
        throw new LimError(
          "bad_settings",
          `the clock of ${one.nodePlace} is over ${maxNodeClockGapMs} ms ahead of that of ${other.nodePlace}; let NTP set both`,
        );
  return { version: found.map(({ version }) => version).sort(byVersion)[0] ?? "" };
}

/** Throws redis_unavailable where slots are served by nobody. */
export async function checkState(cluster: Cluster, place: string): Promise<void> {
  const state = fieldsOf(String(await cluster.cluster("INFO"))).get("cluster_state");
  if (state !== "ok")
    throw new LimError(
      "redis_unavailable",
      `${place} is in state ${state ?? "unknown"}: slots are served by no node`,
    );
}

const byVersion = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });

/** By how much the node's clock is ahead of this process' monotonic one: the bounds that one round trip leaves. */
async function clockOf(node: Redis): Promise<{ leastMs: number; mostMs: number }> {
  const sentAtMs = performance.now();
  const [seconds, micros] = await node.time();
  const gotAtMs = performance.now();
  const nodeMs = Number(seconds) * 1_000 + Number(micros) / 1_000;
  return { leastMs: nodeMs - gotAtMs, mostMs: nodeMs - sentAtMs };
}

function fieldsOf(info: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of info.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

function judgeServer(fields: ReadonlyMap<string, string>, place: string): { version: string } {
  const version = fields.get("redis_version") ?? "";
  const major = Number.parseInt(version, 10);
  if (!(major >= minMajorVersion))
    throw new LimError(
      "bad_settings",
      `${place} is version ${version || "unknown"}; LIM needs Redis ${minMajorVersion}.0 or newer, or Valkey`,
    );
  const policy = fields.get("maxmemory_policy") ?? "unknown";
  if (policy !== "noeviction")
    throw new LimError(
      "bad_settings",
      `${place} evicts keys (maxmemory-policy ${policy}), which would lose requests and tasks; run: redis-cli CONFIG SET maxmemory-policy noeviction, and put it into redis.conf`,
    );
  if (fields.get("role") !== "master")
    throw new LimError("bad_settings", `${place} is a read-only replica; point the URL at the primary`);
  return { version };
}
