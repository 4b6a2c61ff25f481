import { rm } from "node:fs/promises";
import {
  askRedis,
  type LocalCluster,
  type LocalSentinels,
  startRedisCluster,
  startRedisSentinels,
} from "@lim/local-servers";
import { makeRunFolder, testRoot } from "./test-root.ts";

export interface TestRedisCluster extends LocalCluster {
  /** Port of the node that serves the key's slot. */
  portOf(key: string): Promise<number>;
  /** Moves the key's slot with everything in it to the node of that port, as a re-sharding does. */
  moveSlotOf(key: string, toPort: number): Promise<void>;
}

export interface TestRedisSentinels extends LocalSentinels {
  /** Kills the primary, without a word to anybody; returns its port. */
  killPrimary(): Promise<number>;
}

/** A Redis Cluster of three nodes for one test file; its folder goes with `stop`. */
export async function startTestRedisCluster(): Promise<TestRedisCluster> {
  const folder = await runFolder();
  const cluster = await startRedisCluster(folder);
  return {
    ...cluster,
    portOf: async (key) => (await ownerOf(cluster, key)).port,
    moveSlotOf: (key, toPort) => moveSlotOf(cluster, key, toPort),
    stop: () => cluster.stop().finally(() => remove(folder.dir)),
  };
}

/** A primary, its replica and a Sentinel for one test file; their folder goes with `stop`. */
export async function startTestRedisSentinels(): Promise<TestRedisSentinels> {
  const folder = await runFolder();
  const group = await startRedisSentinels(folder);
  return {
    ...group,
    killPrimary: async () => {
      const port = await group.primaryPort();
      for (const pid of group.servers.find((server) => server.port === port)?.pids ?? [])
        process.kill(pid, "SIGKILL");
      return port;
    },
    stop: () => group.stop().finally(() => remove(folder.dir)),
  };
}

async function runFolder(): Promise<{ dir: string; ledgerDir: string }> {
  return { dir: await makeRunFolder(), ledgerDir: await testRoot() };
}

const remove = (dir: string) => rm(dir, { recursive: true, force: true, maxRetries: 5 });

/** Node ids by port. */
async function idsOf(cluster: LocalCluster): Promise<{ port: number; id: string }[]> {
  return Promise.all(
    cluster.nodes.map(async ({ port }) => ({ port, id: await askRedis(port, ["CLUSTER", "MYID"]) })),
  );
}

async function ownerOf(cluster: LocalCluster, key: string): Promise<{ port: number; slot: string }> {
  const anyPort = cluster.nodes[0]?.port ?? 0;
  const slot = await askRedis(anyPort, ["CLUSTER", "KEYSLOT", key]);
  for (const { port } of cluster.nodes) {
    const own = (await askRedis(port, ["CLUSTER", "NODES"]))
      .split("\n")
      .find((line) => line.includes("myself"));
    for (const range of own?.split(" ").slice(8) ?? []) {
      const [first, last = first] = range.split("-").map(Number);
      if (first !== undefined && first <= Number(slot) && Number(slot) <= Number(last)) return { port, slot };
    }
  }
  throw new Error(`nobody serves slot ${slot}`);
}

async function moveSlotOf(cluster: LocalCluster, key: string, toPort: number): Promise<void> {
  const { port, slot } = await ownerOf(cluster, key);
  const ids = await idsOf(cluster);
  const [from, to] = [port, toPort].map((one) => ids.find((node) => node.port === one)?.id ?? "") as [
    string,
    string,
  ];
  await askRedis(toPort, ["CLUSTER", "SETSLOT", slot, "IMPORTING", from]);
  await askRedis(port, ["CLUSTER", "SETSLOT", slot, "MIGRATING", to]);
  const count = Number(await askRedis(port, ["CLUSTER", "COUNTKEYSINSLOT", slot]));
  for (const name of await keysInSlot(port, slot, count))
    await askRedis(port, ["MIGRATE", "127.0.0.1", String(toPort), name, "0", "5000"]);
  for (const node of [toPort, port, ...cluster.nodes.map((one) => one.port)])
    await askRedis(node, ["CLUSTER", "SETSLOT", slot, "NODE", to]);
}

/** `askRedis` reads no lists, so a script joins them. */
async function keysInSlot(port: number, slot: string, count: number): Promise<string[]> {
  const script = "return table.concat(redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], ARGV[2]), '\\n')";
  const text = await askRedis(port, ["EVAL", script, "0", slot, String(count)]);
  return text === "" ? [] : text.split("\n");
}
