import {
  type ErrorName,
  encodeMatchReply,
  LimError,
  limits,
  type MatchReply,
  replyStreamPrefix,
} from "@lim/contracts";
import type { Redis } from "ioredis";
import { redisFailure } from "../failures.ts";
import { fixedKeys, type Keys } from "../keys.ts";
import type { Log } from "../log.ts";
import { loadScript, runScript } from "../lua.ts";
import type { MatchEntry } from "../port.ts";
import type { Destination, HeldEntry } from "./entry.ts";

/**
 * Replies that a stream may hold when its client reads none of them. Above what a client may have in flight, so that
 * no reply somebody waits for is cut off.
 */
export const maxUnreadReplies = 65_536;

/** An error reply to an entry that no search has seen. */
export function refusal(entry: MatchEntry, errorName: ErrorName, detail: string): MatchReply {
  const error = new LimError(errorName, detail.slice(0, limits.maxErrorDetailChars));
  return {
    rid: entry.rid ?? "",
    status_code: error.httpStatus,
    result: [],
    error: error.toBody(),
    index_id: null,
    revision: null,
    timings: { queue_ms: entry.waitedMs, search_ms: 0 },
  };
}

const answerScript = loadScript("stream_answer", (reply) => reply as string[]);

/** Answers of one label, as the script takes them. */
interface Outgoing {
  entryIds: string[];
  /** Reply streams, each once. */
  streams: Map<string, number>;
  /** In turn: where to, and the text. */
  texts: string[];
}

/** The match stream itself is the script's first key. */
const firstReplyKey = 2;

/**
 * Answers, acknowledges and deletes in one step a label (stream_answer.lua): one command and one answer of the server
 * whatever the number of entries. For a Redis Cluster see `writeRepliesAcross`.
 */
export async function writeReplies(
  client: Redis,
  keys: Keys,
  answers: readonly { entry: MatchEntry; reply: MatchReply }[],
  log: Log | undefined,
): Promise<void> {
  const byLabel = new Map<string, Outgoing>();
  for (const { entry, reply } of answers) {
    let outgoing = byLabel.get(entry.label);
    if (!outgoing) {
      outgoing = { entryIds: [], streams: new Map(), texts: [] };
      byLabel.set(entry.label, outgoing);
    }
    addAnswer(outgoing, entry, reply);
  }
  const written = [...byLabel].map(async ([label, { entryIds, streams, texts }]) => {
    const undelivered = await runScript(client, answerScript, {
      keys: [keys.matchStream(label), ...streams.keys()],
      args: [keys.names.consumerGroup, maxUnreadReplies, entryIds.length, ...entryIds, ...texts],
    });
    // A caller that names a key of another type harms itself only.
    for (const reason of undelivered) log?.warn({ reason }, "a match reply could not be delivered");
  });
  await Promise.all(written);
}

function addAnswer({ entryIds, streams, texts }: Outgoing, entry: MatchEntry, reply: MatchReply): void {
  const text = encodeMatchReply(reply);
  const { stream, channel } = destinationOf(entry);
  entryIds.push(entry.entryId);
  if (stream?.startsWith(replyStreamPrefix)) {
    let place = streams.get(stream);
    if (place === undefined) {
      place = firstReplyKey + streams.size;
      streams.set(stream, place);
    }
    texts.push(String(place), text);
  }
  if (channel !== undefined) texts.push(`:${channel}`, text);
}

/** Moves entries to the bounded dead-letter stream, for people to look at; their callers are told by `writeReplies`. */
export async function writeDeadLetters(
  client: Redis,
  entries: readonly { entry: HeldEntry; fields: readonly Buffer[] }[],
): Promise<void> {
  const pipeline = client.pipeline();
  for (const { entry, fields } of entries) {
    const origin = ["label", entry.label, "entry_id", entry.entryId, "deliveries", String(entry.deliveries)];
    pipeline.xadd(
      fixedKeys.deadLetters,
      "MAXLEN",
      "=",
      limits.maxDeadLetters,
      "*",
      ...origin,
      // What cannot be a request is not worth its memory a thousand times over.
      ...("fields" in entry.request ? fields : []),
    );
  }
  const results = await pipeline.exec().catch((thrown: unknown) => {
    throw redisFailure(thrown, "dead letters");
  });
  for (const [error] of results ?? []) if (error) throw redisFailure(error, "dead letters");
}

export function destinationOf(entry: MatchEntry): Destination {
  if ("destination" in entry) return (entry as HeldEntry).destination;
  const fields = "fields" in entry.request ? entry.request.fields : undefined;
  return { stream: fields?.response_stream, channel: fields?.response_channel };
}
