// Process that answers at once what it is asked over a stream: by the streams' own code, or by plain calls of the
// client. Its counterpart is caller-child.ts.
import { randomUUID } from "node:crypto";
import type { Match, MatchReply } from "@lim/contracts";
import { connectRedis, createMatchConsumer, defaultKeyNames, type MatchEntry } from "@lim/coordination";
import { faceIdOf } from "@lim/testkit";
import { serveEngine } from "../engine/rpc.ts";
import { connectPlain } from "./plain-redis.ts";

export type EchoKind = "streams" | "plain";

export interface EchoArgs {
  kind: EchoKind;
  redisUrl: string;
  label: string;
  /** Matches of each answer of the streams' own code. */
  limit: number;
}

export interface EchoOperations {
  [name: string]: (args: never) => Promise<unknown>;
  begin(args: EchoArgs): Promise<void>;
  /** Processor time of the process so far. */
  cpuSeconds(): Promise<number>;
}

/** As a matcher's. */
const batchSize = 64;
const blockMs = 1_000;
export const plainGroup = "echo";

async function beginStreams({ redisUrl, label, limit }: EchoArgs): Promise<void> {
  const redis = connectRedis({ url: redisUrl, name: "bench-echo" });
  const consumerName = `127.0.0.1:0:${randomUUID()}`;
  const consumer = createMatchConsumer({ redis, keys: defaultKeyNames, consumerName, batchSize });
  const result = Array.from({ length: limit }, (_, i): Match => [faceIdOf("echo", i), 1 / (i + 3)]);
  const indexId = randomUUID();
  const replyTo = (entry: MatchEntry): MatchReply => ({
    rid: entry.rid ?? "",
    status_code: 200,
    result,
    error: null,
    index_id: indexId,
    revision: 1,
    timings: { queue_ms: entry.waitedMs, search_ms: 0 },
  });
  await consumer.setLabels([label]);
  const answer = (batch: readonly MatchEntry[]) =>
    consumer.reply(batch.map((entry) => ({ entry, reply: replyTo(entry) })));
  void consumer.run(answer, { signal: new AbortController().signal });
}

/** Reads a batch, answers each with its number alone, acknowledges and deletes; one round trip each way. */
async function beginPlain({ redisUrl, label }: EchoArgs): Promise<void> {
  const reading = connectPlain(redisUrl, { autoPipelining: false });
  const writing = reading.duplicate();
  await writing.xgroup("CREATE", label, plainGroup, "0", "MKSTREAM");
  const read = ["GROUP", plainGroup, "1", "COUNT", batchSize, "BLOCK", blockMs, "STREAMS", label, ">"];
  const echo = async () => {
    for (;;) {
      const entries = (await reading.xreadgroupBuffer(...read))?.[0]?.[1] ?? [];
      if (entries.length === 0) continue;
      const write = writing.pipeline();
      const ids: string[] = [];
      for (const [id, [, number, , , , replyTo]] of entries) {
        write.xadd(String(replyTo), "NOMKSTREAM", "MAXLEN", "~", "10000", "*", "n", String(number));
        ids.push(String(id));
      }
      write.xack(label, plainGroup, ...ids).xdel(label, ...ids);
      await write.exec();
    }
  };
  void echo();
}

async function begin(args: EchoArgs): Promise<void> {
  await (args.kind === "streams" ? beginStreams(args) : beginPlain(args));
}

async function cpuSeconds(): Promise<number> {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

serveEngine({ begin, cpuSeconds } satisfies EchoOperations);
