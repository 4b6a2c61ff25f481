import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import { freePort } from "./free-port.ts";
import type { LocalServer } from "./local-server.ts";
import { onFreePort, requireRedis } from "./redis.ts";
import { askRedis } from "./redis-ping.ts";
import { launchRedis } from "./redis-process.ts";
import { throwIfAborted } from "./spawn-server.ts";

export interface RedisGroupOptions {
  dir: string;
  ledgerDir?: string;
  /** Path of the server's program; default: `redis-server` or `valkey-server` of PATH. */
  program?: string;
  signal?: AbortSignal | undefined;
}

/** One of several servers that belong together. */
export interface RedisNode extends LocalServer {
  port: number;
}

export interface LocalCluster extends LocalServer {
  nodes: RedisNode[];
}

export interface LocalSentinels extends LocalServer {
  servers: RedisNode[];
  sentinels: RedisNode[];
  /** Port of the server that the first Sentinel names as primary now. */
  primaryPort(): Promise<number>;
}

const slotCount = 16_384;
/** A node that is silent for so long is taken for dead by the others: longer than a busy machine may leave it waiting. */
const nodeTimeoutMs = 15_000;
const formLimitMs = 30_000;
const pollMs = 50;
const sentinelName = "lim";
const downAfterMs = 1_500;
const failoverTimeoutMs = 10_000;

/** A Redis Cluster of `primaries` (default 3) nodes on 127.0.0.1 without replicas; all slots are served when this resolves. */
export async function startRedisCluster(
  options: RedisGroupOptions & { primaries?: number },
): Promise<LocalCluster> {
  const program = options.program ?? (await requireRedis());
  const nodes: RedisNode[] = [];
  const stop = async () => void (await Promise.all(nodes.map((node) => node.stop())));
  try {
    for (let at = 0; at < (options.primaries ?? 3); at++) nodes.push(await startNode(options, program));
    await formCluster(nodes, options.signal);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `redis-cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(",")}`,
    pids: nodes.flatMap(({ pids }) => pids),
    nodes,
    stop,
  };
}

/** One more node of `cluster`, without slots. */
export async function joinRedisCluster(
  cluster: LocalCluster,
  options: RedisGroupOptions,
): Promise<RedisNode> {
  const node = await startNode(options, options.program ?? (await requireRedis()));
  cluster.nodes.push(node);
  await meet(cluster.nodes, options.signal);
  return node;
}

/** A primary, a replica of it and `sentinels` (default 1) Sentinels that fail over from the one to the other. */
export async function startRedisSentinels(
  options: RedisGroupOptions & { sentinels?: number },
): Promise<LocalSentinels> {
  const program = options.program ?? (await requireRedis());
  const servers: RedisNode[] = [];
  const sentinels: RedisNode[] = [];
  const stop = async () => void (await Promise.all([...sentinels, ...servers].map((node) => node.stop())));
  try {
    const primary = await startServer(options, program, ["--repl-diskless-sync-delay", "0"]);
    servers.push(primary);
    servers.push(await startServer(options, program, ["--replicaof", `127.0.0.1 ${primary.port}`]));
    await until("the replica is in step", options.signal, async () =>
      /slave0:.*state=online/.test(await askRedis(primary.port, ["INFO", "replication"])),
    );
    const count = options.sentinels ?? 1;
    for (let at = 0; at < count; at++)
      sentinels.push(await startSentinel(options, program, primary.port, Math.floor(count / 2) + 1));
    for (const sentinel of sentinels)
      await until("the Sentinels know each other and the replica", options.signal, async () => {
        const info = await askRedis(sentinel.port, ["INFO", "sentinel"]);
        return info.includes(`status=ok,address=127.0.0.1:${primary.port},slaves=1,sentinels=${count}`);
      });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `redis-sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/${sentinelName}`,
    pids: [...servers, ...sentinels].flatMap(({ pids }) => pids),
    servers,
    sentinels,
    primaryPort: async () => {
      const info = await askRedis(sentinels[0]?.port ?? 0, ["INFO", "sentinel"]);
      return Number(/address=127\.0\.0\.1:(\d+)/.exec(info)?.[1]);
    },
    stop,
  };
}

function startNode(options: RedisGroupOptions, program: string): Promise<RedisNode> {
  return onFreePort(undefined, async (port) => {
    // Else the bus takes the port 10,000 above, which may be another's.
    const busPort = await freePort();
    return startServer(
      options,
      program,
      [
        ...["--cluster-enabled", "yes", "--cluster-config-file", `nodes-${port}.conf`],
        ...["--cluster-port", String(busPort), "--cluster-node-timeout", String(nodeTimeoutMs)],
      ],
      port,
    );
  });
}

function startServer(
  options: RedisGroupOptions,
  program: string,
  extraArgs: readonly string[],
  fixedPort?: number,
): Promise<RedisNode> {
  return onFreePort(fixedPort, async (port) => {
    const dir = join(options.dir, String(port));
    return { port, ...(await launchRedis({ ...options, dir, program, port, extraArgs })) };
  });
}

function startSentinel(
  options: RedisGroupOptions,
  program: string,
  primaryPort: number,
  quorum: number,
): Promise<RedisNode> {
  return onFreePort(undefined, async (port) => {
    const dir = resolve(options.dir, String(port));
    await mkdir(dir, { recursive: true });
    const sentinelConfig = join(dir, "sentinel.conf");
    const lines = [
      `port ${port}`,
      "bind 127.0.0.1",
      `sentinel monitor ${sentinelName} 127.0.0.1 ${primaryPort} ${quorum}`,
      `sentinel down-after-milliseconds ${sentinelName} ${downAfterMs}`,
      `sentinel failover-timeout ${sentinelName} ${failoverTimeoutMs}`,
    ];
    await writeFile(sentinelConfig, `${lines.join("\n")}\n`);
    return { port, ...(await launchRedis({ ...options, dir, program, port, sentinelConfig })) };
  });
}

async function formCluster(nodes: readonly RedisNode[], signal: AbortSignal | undefined): Promise<void> {
  for (const [at, { port }] of nodes.entries()) {
    const first = Math.round((at * slotCount) / nodes.length);
    const last = Math.round(((at + 1) * slotCount) / nodes.length) - 1;
    await askRedis(port, ["CLUSTER", "ADDSLOTSRANGE", String(first), String(last)]);
    // Nodes that begin with the same epoch quarrel about it for a while.
    await askRedis(port, ["CLUSTER", "SET-CONFIG-EPOCH", String(at + 1)]);
  }
  await meet(nodes, signal);
}

async function meet(nodes: readonly RedisNode[], signal: AbortSignal | undefined): Promise<void> {
  const busPorts = await Promise.all(
    nodes.map(async ({ port }) => /@(\d+)/.exec(await askRedis(port, ["CLUSTER", "NODES"]))?.[1] ?? ""),
  );
  const [first] = nodes;
  if (!first) throw new LimError("bad_input", "a cluster needs a node");
  for (const [at, node] of nodes.entries())
    if (node !== first)
      await askRedis(first.port, ["CLUSTER", "MEET", "127.0.0.1", String(node.port), busPorts[at] ?? ""]);
  for (const { port } of nodes)
    await until("every node serves and knows all the others", signal, async () => {
      const info = await askRedis(port, ["CLUSTER", "INFO"]);
      return info.includes("cluster_state:ok") && info.includes(`cluster_known_nodes:${nodes.length}\r`);
    });
}

async function until(
  what: string,
  signal: AbortSignal | undefined,
  holds: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + formLimitMs;
  while (!(await holds())) {
    throwIfAborted(signal, "Redis");
    if (performance.now() > deadline)
      throw new LimError("redis_unavailable", `not within ${formLimitMs} ms: ${what}`);
    await sleep(pollMs);
  }
}
