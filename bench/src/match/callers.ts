// The ways in which callers ask.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { encodeDescriptor } from "@lim/contracts";
import { connectRedis, createMatchClient, defaultKeyNames } from "@lim/coordination";
import { createSearchPlugin } from "@lim/search-plugin";
import { descriptorVersion } from "../build/lists.ts";
import { connectPlain } from "./plain-redis.ts";

/** By the plugin that platforms embed; by the streams' client alone; by plain calls. */
export type CallerKind = "plugin" | "streams" | "plain";

export interface Caller {
  /** False where the answer holds no match; rejects where there is none. */
  ask(n: number): Promise<boolean>;
  close(): Promise<void>;
}

export interface CallerArgs {
  kind: CallerKind;
  redisUrl: string;
  label: string;
  limit: number;
}

const timeoutMs = 10_000;
const servedPollMs = 20;
const servedLimitMs = 60_000;
const maxReadReplies = 512;
const blockMs = 1_000;

export function connectCaller(args: CallerArgs, queries: readonly Float32Array[]): Promise<Caller> {
  const connect = { plugin: connectPlugin, streams: connectStreams, plain: connectPlainCaller };
  return connect[args.kind](args, queries);
}

async function connectPlugin(
  { redisUrl, label, limit }: CallerArgs,
  queries: readonly Float32Array[],
): Promise<Caller> {
  const dim = queries[0]?.length ?? 0;
  const plugin = await createSearchPlugin({ redis: { url: redisUrl }, dim, descriptorVersion });
  const untilMs = performance.now() + servedLimitMs;
  while (!plugin.labels().some((served) => served.label === label)) {
    if (performance.now() > untilMs) throw new Error(`nobody serves ${label} after ${servedLimitMs} ms`);
    await sleep(servedPollMs);
  }
  return {
    async ask(n) {
      const descriptor = queries[n % queries.length] as Float32Array;
      const [answer] = await plugin.match({ label, references: [{ descriptor }], limit, timeoutMs });
      return answer !== undefined && answer.matches.length > 0;
    },
    close: () => plugin.close(),
  };
}

async function connectStreams(
  { redisUrl, label, limit }: CallerArgs,
  queries: readonly Float32Array[],
): Promise<Caller> {
  const redis = connectRedis({ url: redisUrl, name: "bench-callers" });
  const client = createMatchClient({ redis, keys: defaultKeyNames });
  const descriptors = queries.map((query) => encodeDescriptor(query, descriptorVersion));
  return {
    async ask(n) {
      const descriptor = descriptors[n % descriptors.length] as Buffer;
      const reply = await client.request({ label, rid: randomUUID(), descriptor, limit, timeoutMs });
      return reply.status_code === 200 && reply.result.length > 0;
    },
    async close() {
      await client.close();
      await redis.close();
    },
  };
}

/** As little as an echo can do: a number that counts up, the descriptor, where to answer; one reader of the answers. */
async function connectPlainCaller(
  { redisUrl, label }: CallerArgs,
  queries: readonly Float32Array[],
): Promise<Caller> {
  const writing = connectPlain(redisUrl, { autoPipelining: true });
  const reading = writing.duplicate();
  const replyTo = `echo_reply:${randomUUID()}`;
  const descriptors = queries.map((query) => encodeDescriptor(query, descriptorVersion));
  const waiting = new Map<string, () => void>();
  let next = 0;
  let closed = false;
  let lastId = (await writing.xadd(replyTo, "*", "hello", "1")) ?? "0-0";
  const read = async () => {
    while (!closed) {
      const found = await reading.xread(
        ...["COUNT", maxReadReplies, "BLOCK", blockMs, "STREAMS", replyTo, lastId],
      );
      for (const [id, [, number = ""]] of found?.[0]?.[1] ?? []) {
        lastId = id;
        waiting.get(number)?.();
        waiting.delete(number);
      }
    }
  };
  const done = read().catch((thrown: unknown) => {
    if (!closed) throw thrown;
  });
  return {
    async ask(n) {
      const number = String(next++);
      const answered = new Promise<void>((resolve) => waiting.set(number, resolve));
      const descriptor = descriptors[n % descriptors.length] as Buffer;
      await writing.xadd(label, "*", "n", number, "descriptor", descriptor, "reply_to", replyTo);
      await answered;
      return true;
    },
    async close() {
      closed = true;
      reading.disconnect();
      writing.disconnect();
      await done;
    },
  };
}
