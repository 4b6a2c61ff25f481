import { encodeMatchReply, type MatchReply, replyStreamPrefix } from "@lim/contracts";
import type { Redis } from "ioredis";
import { redisFailure } from "../failures.ts";
import type { Keys } from "../keys.ts";
import type { Log } from "../log.ts";
import { loadScript, runScript } from "../lua.ts";
import type { MatchEntry } from "../port.ts";
import { destinationOf, maxUnreadReplies } from "./replies.ts";

const replyScript = loadScript("stream_reply", (reply) => reply as string[]);
const doneScript = loadScript("stream_done", Number);

/**
 * What `writeReplies` does in one script, where a Redis Cluster has match streams and reply streams on different nodes:
 * first the answers, one script for each reply stream, and then the entries whose answers are written are acknowledged
 * and deleted. A crash between the two repeats answers, which their callers know by their rid, and loses none. Rejects
 * where an answer could not be written; what went to other nodes is acknowledged all the same.
 */
export async function writeRepliesAcross(
  client: Redis,
  keys: Keys,
  answers: readonly { entry: MatchEntry; reply: MatchReply }[],
  log: Log | undefined,
): Promise<void> {
  const byStream = new Map<string, { entries: MatchEntry[]; texts: string[] }>();
  const unwritten = new Set<MatchEntry>();
  const failures: unknown[] = [];
  const noting = (written: Promise<void>, entries: readonly MatchEntry[]) =>
    written.catch((thrown: unknown) => {
      failures.push(thrown);
      for (const entry of entries) unwritten.add(entry);
    });
  const writes: Promise<void>[] = [];
  for (const { entry, reply } of answers) {
    const text = encodeMatchReply(reply);
    const { stream, channel } = destinationOf(entry);
    if (stream?.startsWith(replyStreamPrefix)) {
      const same = byStream.get(stream) ?? { entries: [], texts: [] };
      byStream.set(stream, same);
      same.entries.push(entry);
      same.texts.push(text);
    }
    if (channel !== undefined) writes.push(noting(publish(client, channel, text), [entry]));
  }
  for (const [stream, { entries, texts }] of byStream)
    writes.push(noting(writeTo(client, stream, texts, log), entries));
  await Promise.all(writes);
  const written = answers.filter(({ entry }) => !unwritten.has(entry));
  const byLabel = Map.groupBy(written, ({ entry }) => entry.label);
  await Promise.all(
    [...byLabel].map(([label, own]) =>
      runScript(client, doneScript, {
        keys: [keys.matchStream(label)],
        args: [keys.names.consumerGroup, ...own.map(({ entry }) => entry.entryId)],
      }),
    ),
  );
  if (failures.length > 0) throw failures[0];
}

async function writeTo(
  client: Redis,
  stream: string,
  texts: readonly string[],
  log: Log | undefined,
): Promise<void> {
  const undelivered = await runScript(client, replyScript, {
    keys: [stream],
    args: [maxUnreadReplies, ...texts],
  });
  for (const reason of undelivered) log?.warn({ reason }, "a match reply could not be delivered");
}

/** Whichever node it is said to, the cluster tells all of them. */
async function publish(client: Redis, channel: string, text: string): Promise<void> {
  try {
    await client.publish(channel, text);
  } catch (thrown) {
    throw redisFailure(thrown, "PUBLISH");
  }
}
