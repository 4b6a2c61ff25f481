import { LimError, limits, type MatchReply } from "@lim/contracts";
import type { Redis } from "ioredis";
import { clusterOf, commandClient } from "../connection.ts";
import { pause } from "../failures.ts";
import { type Keys, keysOf } from "../keys.ts";
import type { Log } from "../log.ts";
import type { KeyNames, MatchConsumer, MatchEntry, RedisConnection } from "../port.ts";
import { readBacklog, type StreamBacklog } from "./backlog.ts";
import { RedisClock } from "./clock.ts";
import { writeRepliesAcross } from "./cluster-replies.ts";
import { type HeldEntry, parseEntry, type RawEntry } from "./entry.ts";
import { LabelHold } from "./hold.ts";
import { type ReadPlan, StreamReader } from "./reader.ts";
import { refusal, writeDeadLetters, writeReplies } from "./replies.ts";
import { SlotReaders } from "./slot-readers.ts";
import { type ClaimedEntry, StreamUpkeep } from "./upkeep.ts";

const maxBatchSize = 1_024;
/** Abandoned entries are looked for, and held ones renewed, this often. */
const upkeepEveryMs = 500;
const sweepEveryMs = 30_000;
/** Claims of one label in a row; each takes one entry that was delivered before. */
const maxClaimRounds = 256;

/** Counts since the start, for metrics. */
export interface MatchConsumerStats {
  read: number;
  answered: number;
  expired: number;
  invalid: number;
  claimed: number;
  deadLettered: number;
  /** Pending entries that were deleted from the stream before they were answered. */
  gone: number;
  /** Batches whose handler rejected; their unanswered entries come again. */
  failedBatches: number;
}

type Handle = (batch: readonly MatchEntry[]) => Promise<void>;

/**
 * See the port. Entries that fail validation are answered here (bad_match_request) and never reach `handle`, so its
 * entries always have `request.fields`; the descriptor's header and values are the handler's to judge.
 * Delivered more than `limits.maxMatchDeliveries` times, an entry goes to the dead letters.
 */
class StreamMatchConsumer implements MatchConsumer {
  readonly #client: Redis;
  readonly #keys: Keys;
  readonly #batchSize: number;
  readonly #log: Log | undefined;
  readonly #clock: RedisClock;
  readonly #reader: StreamReader | SlotReaders;
  readonly #writeReplies: typeof writeReplies;
  readonly #upkeep: StreamUpkeep;
  readonly #holds = new Map<string, LabelHold>();
  /** Answers under way that no batch waits for. */
  readonly #background = new Set<Promise<void>>();
  readonly #stats: MatchConsumerStats = {
    read: 0,
    answered: 0,
    expired: 0,
    invalid: 0,
    claimed: 0,
    deadLettered: 0,
    gone: 0,
    failedBatches: 0,
  };
  #claimedUntold = 0;
  #handle: Handle | undefined;
  #run: Promise<void> | undefined;
  #stop: AbortController | undefined;

  constructor(options: {
    redis: RedisConnection;
    keys: KeyNames;
    consumerName: string;
    batchSize: number;
    log?: Log;
  }) {
    if (!Number.isInteger(options.batchSize) || options.batchSize < 1 || options.batchSize > maxBatchSize)
      throw new LimError("bad_settings", `batch size must be 1 to ${maxBatchSize}, not ${options.batchSize}`);
    this.#client = commandClient(options.redis);
    this.#keys = keysOf(options.redis, options.keys);
    this.#batchSize = options.batchSize;
    this.#log = options.log;
    this.#clock = new RedisClock(options.redis, options.log);
    this.#upkeep = new StreamUpkeep(this.#client, this.#keys, options.consumerName, options.log);
    const reading = {
      redis: options.redis,
      keys: this.#keys,
      consumerName: options.consumerName,
      owner: {
        labels: () => this.#activeLabels(),
        plan: () => this.#plan(),
        take: (label: string, entries: readonly RawEntry[]) => this.#take(label, entries),
      },
      log: options.log,
    };
    const isCluster = clusterOf(options.redis) !== undefined;
    this.#reader = isCluster ? new SlotReaders(reading) : new StreamReader(reading);
    this.#writeReplies = isCluster ? writeRepliesAcross : writeReplies;
  }

  stats(): MatchConsumerStats {
    return { ...this.#stats };
  }

  /** Of the labels that are read here. */
  backlog(): Promise<StreamBacklog> {
    return readBacklog(this.#client, this.#keys, [...this.#holds.keys()]);
  }

  async setLabels(labels: readonly string[]): Promise<void> {
    const wanted = new Set(labels);
    const added: string[] = [];
    for (const label of wanted) {
      const hold = this.#holds.get(label);
      if (hold?.active) continue;
      if (hold) hold.active = true;
      else this.#holds.set(label, new LabelHold(label, this.#batchSize));
      added.push(label);
    }
    const removed = [...this.#holds.values()].filter((hold) => hold.active && !wanted.has(hold.label));
    for (const hold of removed) hold.active = false;
    // Without Redis the groups are made by the reader, which heals whatever is missing.
    await this.#reader.createGroups(added).catch((thrown: unknown) => {
      this.#log?.warn({ reason: String(thrown) }, "groups of new labels could not be made yet");
    });
    this.#reader.wake();
    await Promise.all(removed.map((hold) => this.#retire(hold)));
  }

  async run(handle: Handle, options: { signal: AbortSignal }): Promise<void> {
    if (this.#run) throw new LimError("internal", "the match consumer runs already");
    this.#stop = new AbortController();
    const signal = AbortSignal.any([options.signal, this.#stop.signal]);
    this.#handle = handle;
    this.#run = this.#runUntil(signal);
    try {
      await this.#run;
    } finally {
      this.#handle = undefined;
      this.#run = undefined;
    }
  }

  async reply(answers: readonly { entry: MatchEntry; reply: MatchReply }[]): Promise<void> {
    await this.#writeReplies(this.#client, this.#keys, answers, this.#log);
    this.#stats.answered += answers.length;
    for (const { entry } of answers) this.#holds.get(entry.label)?.release([entry.entryId]);
  }

  async close(): Promise<void> {
    this.#stop?.abort();
    await this.#run?.catch(() => {});
    const holds = [...this.#holds.values()];
    this.#holds.clear();
    // All at once: where Redis hangs, each waits out its time.
    const left = await Promise.allSettled(holds.map((hold) => this.#upkeep.leave(hold.label)));
    const failed = left.filter((outcome) => outcome.status === "rejected");
    if (failed.length > 0)
      this.#log?.warn(
        { labels: failed.length, reason: String(failed[0]?.reason) },
        "the consumer could not be removed, it is swept later",
      );
  }

  async #runUntil(signal: AbortSignal): Promise<void> {
    await this.#clock.ready(signal);
    await Promise.all([this.#reader.run(signal), this.#upkeepUntil(signal), this.#clock.follow(signal)]);
    // No batch and no claim begins from here on.
    this.#handle = undefined;
    await Promise.all(this.#background);
    await Promise.all([...this.#holds.values()].map((hold) => this.#drain(hold)));
    await Promise.all(this.#background);
  }

  #activeLabels(): string[] {
    return [...this.#holds.values()].filter(({ active }) => active).map(({ label }) => label);
  }

  /** Labels with room for at least half a batch; as many entries as fit into the fullest of them. */
  #plan(): ReadPlan {
    const least = Math.ceil(this.#batchSize / 2);
    const labels: string[] = [];
    let count = this.#batchSize;
    for (const hold of this.#holds.values()) {
      if (!hold.active || hold.room < least) continue;
      labels.push(hold.label);
      count = Math.min(count, hold.room);
    }
    return { labels, count };
  }

  #take(label: string, entries: readonly RawEntry[]): boolean {
    const hold = this.#holds.get(label);
    if (!hold?.active) {
      // Removed while the read was under way: for whoever serves the label now.
      const ids = entries.map(([id]) => id.toString("latin1"));
      this.#inBackground(() => this.#upkeep.handBack(label, ids));
      return true;
    }
    const wasIdle = hold.running === undefined;
    const delivered: ClaimedEntry[] = [];
    for (const [id, fields] of entries)
      if (fields) delivered.push({ id: id.toString("latin1"), deliveries: 1, fields: [...fields] });
    this.#stats.read += delivered.length;
    this.#admit(hold, delivered);
    this.#pump(hold);
    return wasIdle;
  }

  /** Sorts out what is expired, invalid or delivered too often; the rest is held for a batch. */
  #admit(hold: LabelHold, delivered: readonly ClaimedEntry[]): void {
    const redisNowMs = this.#clock.nowMs();
    const localNowMs = performance.now();
    const refused: { entry: HeldEntry; reply: MatchReply }[] = [];
    const dead: { entry: HeldEntry; fields: readonly Buffer[] }[] = [];
    for (const { id, deliveries, fields } of delivered) {
      if (hold.has(id)) continue;
      const entry = parseEntry({
        label: hold.label,
        entryId: id,
        fields,
        deliveries,
        redisNowMs,
        localNowMs,
      });
      if ("invalid" in entry.request) {
        this.#stats.invalid++;
        refused.push({ entry, reply: refusal(entry, "bad_match_request", entry.request.invalid) });
      } else if (entry.deadlineMs <= localNowMs) refused.push(this.#expire(entry));
      else if (deliveries > limits.maxMatchDeliveries) dead.push({ entry, fields });
      else hold.add(entry);
    }
    if (refused.length > 0) this.#inBackground(() => this.reply(refused));
    if (dead.length > 0) this.#inBackground(() => this.#bury(dead));
  }

  #expire(entry: HeldEntry): { entry: HeldEntry; reply: MatchReply } {
    this.#stats.expired++;
    const detail = `the request waited ${Math.round(entry.waitedMs)} ms`;
    return { entry, reply: refusal(entry, "request_expired", detail) };
  }

  async #bury(dead: readonly { entry: HeldEntry; fields: readonly Buffer[] }[]): Promise<void> {
    await writeDeadLetters(this.#client, dead);
    this.#stats.deadLettered += dead.length;
    this.#log?.error(
      { entries: dead.map(({ entry }) => ({ label: entry.label, entryId: entry.entryId, rid: entry.rid })) },
      "match requests went to the dead letters",
    );
    const detail = `delivered ${limits.maxMatchDeliveries} times without an answer`;
    await this.reply(dead.map(({ entry }) => ({ entry, reply: refusal(entry, "dead_lettered", detail) })));
  }

  /** Starts the label's next batch unless one runs. */
  #pump(hold: LabelHold): void {
    const handle = this.#handle;
    if (!handle || hold.running || !hold.active) return;
    while (hold.hasWork) {
      const now = performance.now();
      const batch: HeldEntry[] = [];
      const expired: HeldEntry[] = [];
      for (const entry of hold.next()) (entry.deadlineMs <= now ? expired : batch).push(entry);
      if (expired.length > 0) {
        hold.release(expired.map((entry) => entry.entryId));
        const answers = expired.map((entry) => this.#expire(entry));
        this.#inBackground(() => this.reply(answers));
      }
      if (batch.length === 0) continue;
      hold.running = this.#runBatch(hold, batch, handle);
      break;
    }
  }

  async #runBatch(hold: LabelHold, batch: readonly HeldEntry[], handle: Handle): Promise<void> {
    try {
      await handle(batch);
    } catch (thrown) {
      this.#stats.failedBatches++;
      this.#log?.error(
        { label: hold.label, entries: batch.length, reason: String(thrown) },
        "a batch of matches failed; what it left unanswered comes again",
      );
    }
    hold.release(batch.map((entry) => entry.entryId));
    hold.running = undefined;
    this.#pump(hold);
    this.#reader.wake(hold.label);
    // More of the same may be waiting: each comes alone, but without waiting for the next round.
    if ((batch[0]?.deliveries ?? 1) > 1) this.#inBackground(() => this.#claim(hold));
  }

  async #upkeepUntil(signal: AbortSignal): Promise<void> {
    let sweptAtMs = performance.now();
    while (!signal.aborted) {
      const holds = [...this.#holds.values()];
      const sweeping = performance.now() - sweptAtMs > sweepEveryMs;
      if (sweeping) sweptAtMs = performance.now();
      await Promise.all(
        holds.map(async (hold) => {
          try {
            this.#expireHeld(hold);
            await this.#renew(hold);
            await this.#claim(hold);
            if (sweeping) await this.#upkeep.sweep(hold.label, this.#clock);
          } catch (thrown) {
            this.#log?.debug(
              { label: hold.label, reason: String(thrown) },
              "upkeep of a match stream failed",
            );
          }
        }),
      );
      // Claims of one dead consumer are many, each a moment after the other: told together.
      if (this.#claimedUntold > 0)
        this.#log?.info({ entries: this.#claimedUntold }, "abandoned match requests were claimed");
      this.#claimedUntold = 0;
      await pause(upkeepEveryMs, signal);
    }
  }

  /** A search that takes too long, or for ever, keeps nobody from being told. */
  #expireHeld(hold: LabelHold): void {
    const answers = hold.takeExpired(performance.now()).map((entry) => this.#expire(entry));
    if (answers.length > 0) this.#inBackground(() => this.reply(answers));
  }

  async #renew(hold: LabelHold): Promise<void> {
    const held = hold.heldSince(performance.now() - upkeepEveryMs);
    if (held.length === 0) return;
    const lost = await this.#upkeep.renew(hold.label, held);
    if (lost.length > 0) hold.drop(new Set(lost));
  }

  async #claim(hold: LabelHold): Promise<void> {
    if (hold.claiming) return;
    hold.claiming = true;
    try {
      // What needs no search, as it has expired or is delivered too often, makes way for the next at once.
      for (let round = 0; round < maxClaimRounds && hold.active && this.#handle; round++) {
        const { entries, gone } = await this.#upkeep.claim(hold.label, {
          maxUnread: hold.room,
          suspect: !hold.hasSuspect,
        });
        this.#stats.gone += gone;
        this.#stats.claimed += entries.length;
        this.#claimedUntold += entries.length;
        this.#admit(hold, entries);
        const isWaiting = entries.every(({ id }) => hold.has(id));
        this.#pump(hold);
        if (isWaiting) break;
      }
    } finally {
      hold.claiming = false;
    }
  }

  /** Lets the running batch end and hands back what was read ahead. */
  async #drain(hold: LabelHold): Promise<void> {
    const unrun = hold.takeUnrun().map((entry) => entry.entryId);
    await this.#upkeep.handBack(hold.label, unrun).catch((thrown: unknown) => {
      this.#log?.debug({ label: hold.label, reason: String(thrown) }, "entries could not be handed back");
    });
    await hold.running;
  }

  async #retire(hold: LabelHold): Promise<void> {
    await this.#drain(hold);
    // Wanted again meanwhile, or retired by a later call already.
    if (hold.active || this.#holds.get(hold.label) !== hold) return;
    this.#holds.delete(hold.label);
    await this.#upkeep.leave(hold.label).catch((thrown: unknown) => {
      this.#log?.debug({ label: hold.label, reason: String(thrown) }, "the consumer could not be removed");
    });
  }

  #inBackground(work: () => Promise<void>): void {
    const promise = work().catch((thrown: unknown) => {
      // Unanswered entries stay pending and are claimed again.
      this.#log?.warn({ reason: String(thrown) }, "match requests could not be answered yet");
    });
    this.#background.add(promise);
    void promise.finally(() => this.#background.delete(promise));
  }
}

/** `stats` counts since the start, for metrics. */
export function createMatchConsumer(options: {
  redis: RedisConnection;
  keys: KeyNames;
  /** host:port:boot-id */
  consumerName: string;
  batchSize: number;
  log?: Log;
}): MatchConsumer & { stats(): MatchConsumerStats; backlog(): Promise<StreamBacklog> } {
  return new StreamMatchConsumer(options);
}
