import type { Redis } from "ioredis";
import { blockingClient, commandClient, unblock } from "../connection.ts";
import { abortable, pause, redisFailure } from "../failures.ts";
import type { Keys } from "../keys.ts";
import type { Log } from "../log.ts";
import type { RedisConnection } from "../port.ts";
import type { RawEntry } from "./entry.ts";
import { LatchedSignal } from "./latch.ts";

/** Longest BLOCK; it also bounds how long a flush stays unnoticed. */
const blockMs = 1_000;
const retryAfterErrorMs = 200;
/**
 * Entries gather this long before the next read where the last one brought several, or only labels that are busy anyway:
 * fewer reads, larger batches. One caller who waits for each answer never meets it.
 */
const gatherMs = 1;
const gatherFromEntries = 2;
const maxUnblockTries = 50;
const endGraceMs = 500;

export interface ReadPlan {
  labels: readonly string[];
  /** Entries of each label. */
  count: number;
}

/** One XREADGROUP under way. */
interface Reading {
  labels: ReadonlySet<string>;
  ending: boolean;
}

/** What the reader asks of its owner; all of it is quick and synchronous. */
export interface ReaderOwner {
  /** All labels to read, whether or not there is room for their entries now. */
  labels(): Iterable<string>;
  plan(): ReadPlan;
  /** True when a label waits for work, so that there is no point in gathering. */
  take(label: string, entries: readonly RawEntry[]): boolean;
}

/**
 * The one blocking reader of a consumer, over all labels that have room. A change of the set ends a BLOCK at once
 * by CLIENT UNBLOCK, which, unlike closing the connection, never loses entries already on their way.
 */
export class StreamReader {
  readonly #redis: RedisConnection;
  readonly #client: Redis;
  readonly #keys: Keys;
  readonly #consumerName: string;
  readonly #owner: ReaderOwner;
  readonly #log: Log | undefined;
  readonly #changed = new LatchedSignal();
  #blocking: Redis | undefined;
  #blockingId: number | undefined;
  #reading: Reading | undefined;
  #failing = false;

  constructor(options: {
    redis: RedisConnection;
    keys: Keys;
    consumerName: string;
    owner: ReaderOwner;
    log: Log | undefined;
  }) {
    this.#redis = options.redis;
    this.#client = commandClient(options.redis);
    this.#keys = options.keys;
    this.#consumerName = options.consumerName;
    this.#owner = options.owner;
    this.#log = options.log;
  }

  /** The labels, or the room of one, changed: the read under way is ended if it does not cover `label`. */
  wake(label?: string): void {
    this.#changed.fire();
    const reading = this.#reading;
    if (!reading || (label !== undefined && reading.labels.has(label))) return;
    if (!reading.ending) void this.#unblock(reading);
  }

  /** Makes the groups, at id 0 so that what was sent before the first matcher came is read too. */
  async createGroups(labels: readonly string[]): Promise<void> {
    if (labels.length === 0) return;
    const pipeline = this.#client.pipeline();
    for (const label of labels)
      pipeline.xgroup(
        "CREATE",
        this.#keys.matchStream(label),
        this.#keys.names.consumerGroup,
        "0",
        "MKSTREAM",
      );
    const results = await pipeline.exec();
    for (const [error] of results ?? [])
      if (error && !error.message.startsWith("BUSYGROUP")) throw redisFailure(error, "XGROUP CREATE");
  }

  /** Reads until the signal fires; what was read before that has reached the owner when it resolves. */
  async run(signal: AbortSignal): Promise<void> {
    // In a Redis Cluster its labels share a slot, so any of them leads to its node.
    const [anyLabel = ""] = this.#owner.labels();
    const blocking = blockingClient(this.#redis, "matches", blockMs, this.#keys.matchStream(anyLabel));
    this.#blocking = blocking;
    // The id is a connection's, not a client's.
    const learnId = () => {
      this.#blockingId = undefined;
      blocking.client("ID").then(
        (id) => {
          this.#blockingId = id;
        },
        () => {},
      );
    };
    blocking.on("ready", learnId);
    if (blocking.status === "ready") learnId();
    // A read that does not end (Redis is away) is left: disconnecting alone would not settle it while reconnecting.
    const giveUp = new AbortController();
    let endTimer: NodeJS.Timeout | undefined;
    const end = () => {
      this.wake();
      endTimer = setTimeout(() => giveUp.abort(), endGraceMs);
    };
    signal.addEventListener("abort", end, { once: true });
    try {
      while (!signal.aborted) await this.#step(blocking, signal, giveUp.signal);
    } finally {
      signal.removeEventListener("abort", end);
      clearTimeout(endTimer);
      blocking.disconnect();
    }
  }

  async #step(blocking: Redis, signal: AbortSignal, giveUp: AbortSignal): Promise<void> {
    const plan = this.#owner.plan();
    if (plan.labels.length === 0) return this.#changed.wait(signal);
    this.#changed.reset();
    try {
      const gather = await abortable(this.#read(blocking, plan), giveUp);
      if (this.#failing) this.#log?.info({}, "match streams are read again");
      this.#failing = false;
      if (gather) await pause(gatherMs, signal);
    } catch (thrown) {
      if (signal.aborted) return;
      if (thrown instanceof Error && thrown.message.includes("NOGROUP")) await this.#heal(plan.labels);
      else {
        const failure = redisFailure(thrown, "XREADGROUP");
        // Once: a server that refuses (its disk is full, say) does so five times a second.
        if (!this.#failing)
          this.#log?.warn({ reason: failure.detail }, "match streams cannot be read, trying again");
        this.#failing = true;
        await pause(retryAfterErrorMs, signal);
      }
    }
  }

  /** True when entries should gather before the next read. */
  async #read(blocking: Redis, plan: ReadPlan): Promise<boolean> {
    const reading: Reading = { labels: new Set(plan.labels), ending: false };
    this.#reading = reading;
    const labelOf = new Map(plan.labels.map((label) => [this.#keys.matchStream(label), label]));
    let reply: unknown;
    try {
      reply = await blocking.xreadgroupBuffer(
        "GROUP",
        this.#keys.names.consumerGroup,
        this.#consumerName,
        "COUNT",
        plan.count,
        "BLOCK",
        blockMs,
        "STREAMS",
        ...labelOf.keys(),
        ...plan.labels.map(() => ">"),
      );
    } finally {
      this.#reading = undefined;
    }
    if (!Array.isArray(reply)) return false;
    let areBusy = true;
    let read = 0;
    for (const [stream, entries] of reply as [Buffer, RawEntry[]][]) {
      const label = labelOf.get(stream.toString("utf8"));
      read += entries.length;
      if (label !== undefined && this.#owner.take(label, entries)) areBusy = false;
    }
    return areBusy || read >= gatherFromEntries;
  }

  async #heal(labels: readonly string[]): Promise<void> {
    this.#log?.warn({ labels: labels.length }, "a match stream or its group is gone (flush), making it anew");
    try {
      await this.createGroups(labels);
    } catch (thrown) {
      this.#log?.warn({ reason: String(thrown) }, "groups could not be made, trying again");
      await pause(retryAfterErrorMs, undefined);
    }
  }

  /** The read may not have reached the server yet, or the id may not be known: tries until that read has ended. */
  async #unblock(reading: Reading): Promise<void> {
    reading.ending = true;
    try {
      for (let tries = 0; tries < maxUnblockTries && this.#reading === reading; tries++) {
        if (this.#blocking && this.#blockingId !== undefined)
          if (await unblock(this.#redis, this.#blocking, this.#blockingId)) return;
        await pause(1, undefined);
      }
    } catch {
      // Redis is unreachable: the BLOCK ends by itself.
    }
  }
}
