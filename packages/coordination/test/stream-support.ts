import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { encodeDescriptor, type MatchReply, matchReplySchema } from "@lim/contracts";
import { type ManagedProcess, startProcess } from "@lim/testkit";
import type { KeyNames, MatchClient, MatchConsumer, MatchEntry, RedisConnection } from "../src/port.ts";
import { createMatchClient } from "../src/streams/client.ts";
import { createMatchConsumer, type MatchConsumerStats } from "../src/streams/consumer.ts";
import type { RedisFixture } from "./support.ts";

export const indexId = "7c2c4f0a-27c7-4c40-9f7b-0b1f6a5f8a11";
export const descriptor = encodeDescriptor(new Float32Array(16).fill(0.25), 3);

/** What needs an answer gets it on a busy machine, too. */
export const requestTimeoutMs = 20_000;

/** A success that says who answered and what bytes it saw. */
export function echoOf(entry: MatchEntry): MatchReply {
  return {
    rid: entry.rid ?? "",
    status_code: 200,
    result: [],
    error: null,
    index_id: indexId,
    revision: 7,
    timings: { queue_ms: entry.waitedMs, search_ms: 0 },
  };
}

export interface RunningConsumer {
  consumer: MatchConsumer & { stats(): MatchConsumerStats };
  batches: (readonly MatchEntry[])[];
  /** Ends `run`, then closes. */
  stop(): Promise<void>;
  /** Ends `run` only. */
  halt(): Promise<void>;
}

export interface StreamFixture {
  keys: KeyNames;
  label: string;
  client: MatchClient;
  request(
    options?: Partial<Parameters<MatchClient["request"]>[0]> & { signal?: AbortSignal },
  ): Promise<MatchReply>;
  consume(options?: {
    labels?: readonly string[];
    batchSize?: number;
    name?: string;
    handle?: (batch: readonly MatchEntry[], consumer: MatchConsumer) => Promise<void>;
  }): Promise<RunningConsumer>;
  /** A consumer in its own process, that echoes, and dies of entries whose request id says so. */
  spawn(name: string): ManagedProcess;
  stream(label?: string): string;
  close(): Promise<void>;
}

export function streamFixture(
  fixture: Pick<RedisFixture, "url" | "connect">,
  options: { matchStreamPrefix?: string } = {},
): StreamFixture {
  const keys: KeyNames = {
    masterLock: "unused",
    matcherLockPrefix: "unused",
    consumerGroup: "lim_matcher",
    matchStreamPrefix: options.matchStreamPrefix ?? `m-${randomUUID().slice(0, 8)}:`,
  };
  const label = randomUUID();
  const client = createMatchClient({ redis: fixture.connect(), keys });
  const cleanUps: (() => Promise<void>)[] = [];
  return {
    keys,
    label,
    client,
    stream: (other = label) => `${keys.matchStreamPrefix}${other}`,
    async request({ signal, ...options } = {}) {
      const request = {
        label,
        rid: randomUUID(),
        descriptor,
        limit: 10,
        timeoutMs: requestTimeoutMs,
        ...options,
      };
      return matchReplySchema.parse(await client.request(request, { signal }));
    },
    async consume({ labels = [label], batchSize = 32, name = randomUUID(), handle } = {}) {
      const redis: RedisConnection = fixture.connect();
      const consumer = createMatchConsumer({ redis, keys, consumerName: name, batchSize });
      const stop = new AbortController();
      const batches: (readonly MatchEntry[])[] = [];
      await consumer.setLabels(labels);
      const running = consumer.run(
        async (batch) => {
          batches.push(batch);
          if (handle) await handle(batch, consumer);
          else await consumer.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
        },
        { signal: stop.signal },
      );
      const halt = async () => {
        stop.abort();
        await running;
      };
      const end = async () => {
        await halt();
        await consumer.close();
      };
      cleanUps.push(end);
      return { consumer, batches, stop: end, halt };
    },
    spawn(name) {
      const child = startProcess({
        name,
        script: fileURLToPath(new URL("./fixtures/consumer.ts", import.meta.url)),
        args: [JSON.stringify({ url: fixture.url, keys, label, name })],
      });
      cleanUps.push(async () => {
        child.kill("SIGKILL");
        await child.exited;
      });
      return child;
    },
    async close() {
      for (const cleanUp of cleanUps.splice(0)) await cleanUp();
      await client.close();
    },
  };
}
