import { type MatchReply, replyStreamPrefix } from "@lim/contracts";
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
 * first the answers, one script for each reply stream, and once all of them are written the entries are acknowledged
 * and deleted. A crash between the two repeats answers, which their callers know by their rid, and loses none.
 */
export async function writeRepliesAcross(
  client: Redis,
  keys: Keys,
  answers: readonly { entry: MatchEntry; reply: MatchReply }[],
  log: Log | undefined,
): Promise<void> {
  const byStream = new Map<string, string[]>();
  const published: Promise<unknown>[] = [];
  for (const { entry, reply } of answers) {
    const text = JSON.stringify(reply);
    const { stream, channel } = destinationOf(entry);
    if (stream?.startsWith(replyStreamPrefix)) {
      const texts = byStream.get(stream);
      if (texts) texts.push(text);
      else byStream.set(stream, [text]);
    }
    if (channel !== undefined) published.push(publish(client, channel, text));
  }
  const written = [...byStream].map(async ([stream, texts]) => {
    const undelivered = await runScript(client, replyScript, {
      keys: [stream],
      args: [maxUnreadReplies, ...texts],
    });
    for (const reason of undelivered) log?.warn({ reason }, "a match reply could not be delivered");
  });
  await Promise.all([...written, ...published]);
  const byLabel = Map.groupBy(answers, ({ entry }) => entry.label);
  await Promise.all(
    [...byLabel].map(([label, own]) =>
      runScript(client, doneScript, {
        keys: [keys.matchStream(label)],
        args: [keys.names.consumerGroup, ...own.map(({ entry }) => entry.entryId)],
      }),
    ),
  );
}

/** Whichever node it is said to, the cluster tells all of them. */
async function publish(client: Redis, channel: string, text: string): Promise<void> {
  try {
    await client.publish(channel, text);
  } catch (thrown) {
    throw redisFailure(thrown, "PUBLISH");
  }
}
