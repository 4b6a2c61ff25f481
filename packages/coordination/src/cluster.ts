import { connect as connectTcp, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import type { RedisTarget } from "@lim/contracts";
import { AbstractConnector, Cluster, type Command, Redis, type RedisOptions } from "ioredis";
import { pause } from "./failures.ts";
import { slotOf } from "./slots.ts";

/** How often a reader whose slot nobody serves looks again. */
const locateRetryMs = 100;
const retryDelayMs = 100;
/** A server that is gone is known as such after so many tries, `retryDelayMs` each; the time of a command ends them too. */
const maxRedirections = 16;

/** All of them leave replies in the shapes of RESP2. */
export type ServerOptions = Omit<RedisOptions, "replyMapping">;

/** ioredis' client limits the time of what is on its way to a node, but not of what waits for the cluster itself. */
class BoundedCluster extends Cluster {
  commandTimeoutMs = 0;

  override sendCommand(command: Command, stream?: never, node?: unknown): unknown {
    command.setTimeout(this.commandTimeoutMs);
    return super.sendCommand(command, stream, node);
  }
}

export function connectCluster(
  target: RedisTarget & { kind: "cluster" },
  options: { node: ServerOptions; commandTimeoutMs: number; retryStrategy: (times: number) => number },
): Cluster {
  const cluster = new BoundedCluster(target.nodes, {
    redisOptions: options.node,
    clusterRetryStrategy: options.retryStrategy,
    maxRedirections,
    retryDelayOnFailover: retryDelayMs,
    retryDelayOnClusterDown: retryDelayMs,
    retryDelayOnTryAgain: retryDelayMs,
    // A certificate is for a name: it must not be replaced by its address.
    ...(target.tls
      ? { dnsLookup: (host: string, found: (error: null, address: string) => void) => found(null, host) }
      : {}),
  });
  cluster.commandTimeoutMs = options.commandTimeoutMs;
  return cluster;
}

/** `host:port` of the node that each blocking connection was last opened to. */
const places = new WeakMap<Redis, () => string | undefined>();

/** A connection to whichever node serves the key's slot: one that moves is followed by connecting anew. */
export function connectToSlot(cluster: Cluster, key: string, options: ServerOptions): Redis {
  const slot = slotOf(key);
  let place: string | undefined;
  class SlotConnector extends AbstractConnector {
    constructor() {
      super(slotDisconnectTimeoutMs);
    }

    async connect(): Promise<Socket> {
      this.connecting = true;
      // What is known may be what led to the wrong node.
      if (place !== undefined) await refreshSlots(cluster);
      while (cluster.slots[slot]?.[0] === undefined && this.connecting && cluster.status !== "end") {
        await pause(locateRetryMs, undefined);
        await refreshSlots(cluster);
      }
      const node = cluster.slots[slot]?.[0];
      if (!this.connecting || node === undefined) throw new Error("Connection is closed.");
      place = node;
      const colon = node.lastIndexOf(":");
      const at = { host: node.slice(0, colon), port: Number(node.slice(colon + 1)) };
      const stream = options.tls
        ? connectTls({ ...at, ...(options.tls as ConnectionOptions) })
        : connectTcp(at);
      this.stream = stream;
      return stream;
    }
  }
  const client = new Redis({
    ...options,
    Connector: SlotConnector,
    // 2: connect anew, and send the command again.
    reconnectOnError: (error: Error) => (/^(MOVED|READONLY) /.test(error.message) ? 2 : false),
  });
  places.set(client, () => place);
  return client;
}

const slotDisconnectTimeoutMs = 2_000;

/** The cluster's own connection to the node that `client` (of connectToSlot) is connected to. */
export function nodeOf(cluster: Cluster, client: Redis): Redis | undefined {
  const place = places.get(client)?.();
  return cluster.nodes("all").find(({ options }) => `${options.host}:${options.port}` === place);
}

/** Never rejects: where no node answers, what was known stays. */
function refreshSlots(cluster: Cluster): Promise<void> {
  return new Promise((resolve) => cluster.refreshSlotsCache(() => resolve()));
}
