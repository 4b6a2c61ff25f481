import { randomUUID } from "node:crypto";
import { decodeMatchReply, LimError, limits, type MatchReply } from "@lim/contracts";
import { type Redis, ReplyError } from "ioredis";
import { blockingClient, commandClient } from "../connection.ts";
import { abortable, abortedError, pause, redisFailure } from "../failures.ts";
import { fixedKeys, type Keys, keysOf } from "../keys.ts";
import type { Log } from "../log.ts";
import { loadScript, runScript } from "../lua.ts";
import type { Cancellable, KeyNames, MatchClient, MatchRequest, RedisConnection } from "../port.ts";
import { maxUnreadReplies } from "./replies.ts";

/** Requests in flight; past it a request is refused (overloaded). */
export const maxPendingRequests = maxUnreadReplies / 4;
/** Requests of one command. */
const maxSendBatch = 256;
const maxReadReplies = 512;
/** Replies that were read stay on the stream until so many, or nobody's request is answered for a while. */
const trimEvery = 256;
const blockMs = 1_000;
const retryAfterErrorMs = 200;
const replyField = Buffer.from("reply");
/** A reply stream outlives its client by this much. */
const replyStreamTtlMs = limits.maxMatchTimeoutMs * 2;
/** How often the stream's life is prolonged, which is also how soon its loss (a flush, a restart) is noticed. */
const keepAliveEveryMs = 1_000;

/** A consumer renews what it holds within a second: one that did not for longer is taken for dead. */
const deadConsumerAfterMs = 1_250;
/** Of a request's timeout: a consumer silent for so long is worth asking another. */
const silentShare = 0.25;

const askScript = loadScript("stream_ask", (reply) => String(reply).split("\n"));
const askAgainScript = loadScript("stream_ask_again", (reply) => reply as string | null);

interface Pending {
  request: MatchRequest;
  /** By performance.now(). */
  deadlineMs: number;
  /** Its latest entry on the match stream. */
  entryId: string | undefined;
  /** Entries before it that may still be there. */
  earlierIds?: string[];
  /** It is being sent again just now. */
  resending?: boolean;
  settle(outcome: MatchReply | LimError): void;
}

/** See the port. One reply stream and one blocking reader whatever the number of requests. */
class StreamMatchClient implements MatchClient {
  readonly #redis: RedisConnection;
  readonly #client: Redis;
  readonly #keys: Keys;
  readonly #log: Log | undefined;
  readonly #replyStream = fixedKeys.replyStream(randomUUID());
  readonly #pending = new Map<string, Pending>();
  readonly #stop = new AbortController();
  #outbox: Pending[] = [];
  #sending = false;
  #opened: Promise<void> | undefined;
  #reader: Promise<void> | undefined;
  #lastReadId = "0-0";
  #untrimmed = 0;
  #keptAliveAtMs = 0;

  constructor(options: { redis: RedisConnection; keys: KeyNames; log?: Log }) {
    this.#redis = options.redis;
    this.#client = commandClient(options.redis);
    this.#keys = keysOf(options.redis, options.keys);
    this.#log = options.log;
  }

  async request(request: MatchRequest, options?: Cancellable): Promise<MatchReply> {
    const signal = options?.signal;
    if (signal?.aborted) throw abortedError(signal);
    if (this.#stop.signal.aborted) throw new LimError("aborted", "the match client was closed");
    if (this.#pending.size >= maxPendingRequests)
      throw new LimError("overloaded", `${maxPendingRequests} match requests are in flight`);
    if (this.#pending.has(request.rid))
      throw new LimError("bad_input", `a request with rid ${request.rid} is in flight`);
    if (!(request.timeoutMs >= 1 && request.timeoutMs <= limits.maxMatchTimeoutMs))
      throw new LimError("bad_input", `timeout must be 1 to ${limits.maxMatchTimeoutMs} ms`);
    return new Promise<MatchReply>((resolve, reject) => {
      const pending: Pending = {
        request,
        deadlineMs: performance.now() + request.timeoutMs,
        entryId: undefined,
        settle: (outcome) => {
          if (!this.#pending.delete(request.rid)) return;
          clearTimeout(timer);
          signal?.removeEventListener("abort", onAbort);
          if (outcome instanceof LimError) reject(outcome);
          else resolve(outcome);
        },
      };
      const onAbort = () => signal && this.#giveUp(pending, abortedError(signal));
      const timer = setTimeout(() => {
        const detail = `no matcher answered within ${request.timeoutMs} ms`;
        this.#giveUp(pending, new LimError("request_expired", detail));
      }, request.timeoutMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#pending.set(request.rid, pending);
      this.#post(pending);
    });
  }

  async resend(rid: string): Promise<boolean> {
    const pending = this.#pending.get(rid);
    const leftMs = Math.floor((pending?.deadlineMs ?? 0) - performance.now());
    if (pending?.entryId === undefined || leftMs < 1 || pending.resending) return false;
    pending.resending = true;
    try {
      const id = await this.#askAgain(pending.request, pending.entryId, leftMs);
      if (id === null) return false;
      pending.earlierIds = [...(pending.earlierIds ?? []), pending.entryId];
      pending.entryId = id;
      // Answered or given up meanwhile: nobody waits for this one.
      if (this.#pending.get(rid) !== pending) this.#takeBack(pending);
      return true;
    } finally {
      pending.resending = false;
    }
  }

  #askAgain(request: MatchRequest, entryId: string, leftMs: number): Promise<string | null> {
    const silentMs = Math.min(Math.floor(request.timeoutMs * silentShare), deadConsumerAfterMs);
    const patience = [this.#keys.names.consumerGroup, entryId, silentMs, deadConsumerAfterMs];
    return runScript(this.#client, askAgainScript, {
      keys: [this.#keys.matchStream(request.label)],
      args: [...patience, ...this.#fieldsOf(request, leftMs)],
    });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const pending of [...this.#pending.values()])
      this.#giveUp(pending, new LimError("aborted", "the match client was closed"));
    // A first request may be opening the stream: it must not begin to read, or make the stream, after the end.
    await this.#opened?.catch(() => {});
    await this.#reader;
    await this.#client.del(this.#replyStream).catch(() => {
      // Its time to live does it.
    });
  }

  /** Sent at the end of this turn of the event loop, together with what else is asked in it. */
  #post(pending: Pending): void {
    this.#outbox.push(pending);
    if (this.#sending) return;
    this.#sending = true;
    setImmediate(() => void this.#send());
  }

  async #send(): Promise<void> {
    try {
      this.#opened ??= this.#open();
      await this.#opened;
    } catch (thrown) {
      this.#opened = undefined;
      this.#sending = false;
      const failure = redisFailure(thrown, "reply stream");
      for (const pending of this.#outbox.splice(0)) pending.settle(failure);
      return;
    }
    this.#sending = false;
    while (this.#outbox.length > 0) void this.#sendBatch(this.#outbox.splice(0, maxSendBatch));
  }

  async #sendBatch(batch: readonly Pending[]): Promise<void> {
    const now = performance.now();
    const byLabel = new Map<string, Pending[]>();
    for (const pending of batch) {
      const { rid, label } = pending.request;
      if (this.#pending.get(rid) !== pending || pending.deadlineMs <= now) continue;
      const same = byLabel.get(label);
      if (same) same.push(pending);
      else byLabel.set(label, [pending]);
    }
    await Promise.all([...byLabel].map(([label, live]) => this.#sendTo(label, live, now)));
  }

  async #sendTo(label: string, live: readonly Pending[], now: number): Promise<void> {
    const args: (string | Buffer | number)[] = [this.#replyStream];
    for (const { request, deadlineMs } of live) {
      const rarer = rarerFieldsOf(request);
      const { rid, limit, descriptor } = request;
      args.push(rid, limit, Math.ceil(deadlineMs - now), descriptor, rarer.length, ...rarer);
    }
    try {
      const written = await runScript(this.#client, askScript, {
        keys: [this.#keys.matchStream(label)],
        args,
      });
      live.forEach((pending, at) => {
        const id = written[at] ?? "";
        if (id.startsWith("!")) pending.settle(redisFailure(new ReplyError(id.slice(1)), "match request"));
        else pending.entryId = id;
      });
    } catch (thrown) {
      const failure = redisFailure(thrown, "match request");
      for (const pending of live) pending.settle(failure);
    }
  }

  #fieldsOf(request: MatchRequest, timeoutMs: number): (string | Buffer | number)[] {
    const fields: (string | Buffer | number)[] = [
      "rid",
      request.rid,
      "descriptor",
      request.descriptor,
      "limit",
      request.limit,
      "timeout_ms",
      timeoutMs,
      "response_stream",
      this.#replyStream,
    ];
    fields.push(...rarerFieldsOf(request));
    return fields;
  }

  /** Rejects, and takes the entry off the stream so that no matcher searches for nobody. */
  #giveUp(pending: Pending, error: LimError): void {
    pending.settle(error);
    this.#takeBack(pending);
  }

  #takeBack(pending: Pending): void {
    if (pending.entryId === undefined) return;
    const entryIds = [...(pending.earlierIds ?? []), pending.entryId];
    this.#client.xdel(this.#keys.matchStream(pending.request.label), ...entryIds).catch(() => {
      // It expires by its own stream id.
    });
  }

  async #open(): Promise<void> {
    await this.#keepAlive();
    if (!this.#stop.signal.aborted) this.#reader ??= this.#read();
  }

  /** Matchers write to a reply stream only where it exists. Returns true where it had to be made. */
  async #keepAlive(): Promise<boolean> {
    this.#keptAliveAtMs = performance.now();
    if ((await this.#client.pexpire(this.#replyStream, replyStreamTtlMs)) === 1) return false;
    await this.#client
      .multi()
      .xadd(this.#replyStream, "*", "hello", "1")
      .pexpire(this.#replyStream, replyStreamTtlMs)
      .exec();
    return true;
  }

  async #read(): Promise<void> {
    const signal = this.#stop.signal;
    let failing = false;
    const blocking = blockingClient(this.#redis, "replies", blockMs, this.#replyStream);
    // Another server may have taken over, whose ids count from an earlier clock: replies read twice harm nobody.
    blocking.on("ready", () => {
      this.#lastReadId = "0-0";
    });
    // Replies that are cut off here have nobody waiting: the client is closing.
    signal.addEventListener("abort", () => blocking.disconnect(), { once: true });
    while (!signal.aborted) {
      try {
        if (performance.now() - this.#keptAliveAtMs >= keepAliveEveryMs && (await this.#keepAlive()))
          this.#recover();
        await this.#readOnce(blocking);
        if (failing) this.#log?.info({}, "replies are read again");
        failing = false;
      } catch (thrown) {
        if (signal.aborted) break;
        const failure = redisFailure(thrown, "XREAD");
        // Once: Redis may be away for hours.
        if (!failing) this.#log?.warn({ reason: failure.detail }, "replies cannot be read, trying again");
        failing = true;
        await pause(retryAfterErrorMs, signal);
      }
    }
    blocking.disconnect();
  }

  async #readOnce(blocking: Redis): Promise<void> {
    const from = this.#lastReadId;
    if (this.#untrimmed >= trimEvery) {
      this.#untrimmed = 0;
      // Travels with the next read; where it fails the read says so too.
      blocking.xtrim(this.#replyStream, "MINID", idAfter(from)).catch(() => {});
    }
    const read = blocking.xreadBuffer(
      "COUNT",
      maxReadReplies,
      "BLOCK",
      blockMs,
      "STREAMS",
      this.#replyStream,
      from,
    );
    // Disconnecting alone would not settle it while Redis is away.
    const streams = await abortable(read, this.#stop.signal);
    if (!streams && this.#untrimmed > 0) this.#untrimmed = trimEvery;
    // Recovered meanwhile: a new stream may count from an earlier clock.
    if (this.#lastReadId !== from) return;
    const entries = streams?.[0]?.[1];
    if (!entries) return;
    for (const [, fields] of entries) {
      const [name, text] = fields;
      if (text !== undefined && name?.equals(replyField)) this.#accept(text);
    }
    this.#untrimmed += entries.length;
    this.#lastReadId = String(entries.at(-1)?.[0] ?? from);
  }

  /** The first reply of a rid settles it; later ones (at least once) find nobody and are dropped. */
  #accept(text: Buffer): void {
    try {
      const reply = decodeMatchReply(text);
      this.#pending.get(reply.rid)?.settle(reply);
    } catch (thrown) {
      this.#log?.warn({ reason: LimError.from(thrown).detail }, "a reply that is no reply was dropped");
    }
  }

  /** The reply stream was lost, so replies and perhaps the requests are: all are sent again, rids make that safe. */
  #recover(): void {
    this.#lastReadId = "0-0";
    if (this.#pending.size === 0) return;
    this.#log?.warn({ requests: this.#pending.size }, "the reply stream was lost, sending again");
    for (const pending of this.#pending.values()) this.#post(pending);
  }
}

/** Names and values in turn of what most requests leave out. */
function rarerFieldsOf({ threshold, minRevision, lunaRequestId, traceparent }: MatchRequest): string[] {
  const fields: string[] = [];
  if (threshold !== undefined) fields.push("threshold", String(threshold));
  if (minRevision !== undefined) fields.push("min_revision", String(minRevision));
  if (lunaRequestId !== undefined) fields.push("luna_request_id", lunaRequestId);
  if (traceparent !== undefined) fields.push("traceparent", traceparent);
  return fields;
}

function idAfter(entryId: string): string {
  const dash = entryId.indexOf("-");
  return `${entryId.slice(0, dash)}-${BigInt(entryId.slice(dash + 1)) + 1n}`;
}

export function createMatchClient(options: {
  redis: RedisConnection;
  keys: KeyNames;
  log?: Log;
}): MatchClient {
  return new StreamMatchClient(options);
}
