import type { LabelKeyValue } from "@lim/contracts";
import type { Redis } from "ioredis";
import { commandClient, pipelined } from "../connection.ts";
import { redisFailure } from "../failures.ts";
import { fixedKeys } from "../keys.ts";
import type { Log } from "../log.ts";
import { loadScript, runScript } from "../lua.ts";
import type { LabelAnnouncer, RedisConnection } from "../port.ts";
import { withdrawnKey } from "./keys.ts";

const announceScript = loadScript("label_announce", Number);
const retryAfterFailureMs = 500;

/**
 * See the port. Every step is a command or script on one key, since label keys and the set of labels lie in
 * different slots of a Cluster; the order makes each step safe alone: the key is set before it is listed, and
 * unlisted before it is deleted. `announce` does not fail where Redis is away: the renewal makes up for it.
 * `withdraw` rejects then, as the key may live on for its TTL.
 */
class RedisLabelAnnouncer implements LabelAnnouncer {
  readonly #redis: RedisConnection;
  readonly #client: Redis;
  readonly #matcherId: string;
  readonly #ttlMs: number;
  readonly #renewMs: number;
  readonly #log: Log | undefined;
  readonly #values = new Map<string, LabelKeyValue>();
  /** One change after another: a renewal must not set again what is being withdrawn. */
  #turn: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #failing = false;
  #closed = false;

  constructor(options: {
    redis: RedisConnection;
    matcherId: string;
    ttlMs: number;
    renewMs: number;
    log?: Log;
  }) {
    this.#redis = options.redis;
    this.#client = commandClient(options.redis);
    this.#matcherId = options.matcherId;
    this.#ttlMs = options.ttlMs;
    this.#renewMs = options.renewMs;
    this.#log = options.log;
    this.#schedule(this.#renewMs);
  }

  async announce(label: string, value: LabelKeyValue): Promise<void> {
    if (this.#closed) return;
    this.#values.set(label, value);
    await this.#inTurn(() => this.#publish([label])).then(
      () => this.#note(undefined),
      (thrown: unknown) => this.#note(thrown),
    );
  }

  async withdraw(label: string): Promise<void> {
    this.#values.delete(label);
    await this.#inTurn(() => this.#remove([label]));
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    const labels = [...this.#values.keys()];
    this.#values.clear();
    await this.#inTurn(() => this.#remove(labels)).catch((thrown: unknown) => {
      this.#log?.warn(
        { reason: String(thrown) },
        "label keys could not be withdrawn, they expire by themselves",
      );
    });
  }

  #schedule(delayMs: number): void {
    if (this.#closed) return;
    this.#timer = setTimeout(async () => {
      let nextMs = this.#renewMs;
      try {
        await this.#inTurn(() => this.#publish([...this.#values.keys()]));
        this.#note(undefined);
      } catch (thrown) {
        this.#note(thrown);
        nextMs = Math.min(nextMs, retryAfterFailureMs);
      }
      this.#schedule(nextMs);
    }, delayMs);
  }

  /** Said once where it begins to fail, and once where it works again. */
  #note(thrown: unknown): void {
    if (thrown !== undefined && !this.#failing)
      this.#log?.warn({ reason: String(thrown) }, "label keys cannot be set, trying again");
    if (thrown === undefined && this.#failing) this.#log?.info({}, "label keys are set again");
    this.#failing = thrown !== undefined;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }

  async #publish(labels: readonly string[]): Promise<void> {
    const commands: Parameters<typeof pipelined>[1][number][] = [];
    const members: string[] = [];
    for (const label of labels) {
      const value = this.#values.get(label);
      // Withdrawn while it waited for its turn.
      if (!value) continue;
      const key = fixedKeys.labelKey(label, this.#matcherId);
      commands.push(["set", key, JSON.stringify(value), "PX", this.#ttlMs]);
      members.push(fixedKeys.labelMember(label, this.#matcherId));
    }
    if (members.length === 0) return;
    commands.push(["zrem", withdrawnKey, ...members]);
    await settle(pipelined(this.#redis, commands), "label keys");
    await runScript(this.#client, announceScript, {
      keys: [fixedKeys.labels],
      args: [this.#ttlMs, ...members],
    });
  }

  async #remove(labels: readonly string[]): Promise<void> {
    if (labels.length === 0) return;
    const members = labels.map((label) => fixedKeys.labelMember(label, this.#matcherId));
    // Watchers take a member that vanishes without this word for lost data and keep it for a while.
    await runScript(this.#client, announceScript, { keys: [withdrawnKey], args: [this.#ttlMs, ...members] });
    await settle(pipelined(this.#redis, [["zrem", fixedKeys.labels, ...members]]), "label keys");
    const keys = labels.map((label) => ["del", fixedKeys.labelKey(label, this.#matcherId)] as const);
    await settle(pipelined(this.#redis, keys), "label keys");
  }
}

async function settle(work: Promise<[error: Error | null, result: unknown][]>, what: string): Promise<void> {
  let results: [error: Error | null, result: unknown][];
  try {
    results = await work;
  } catch (thrown) {
    throw redisFailure(thrown, what);
  }
  for (const [error] of results) if (error) throw redisFailure(error, what);
}

export function createLabelAnnouncer(options: {
  redis: RedisConnection;
  matcherId: string;
  ttlMs: number;
  renewMs: number;
  log?: Log;
}): LabelAnnouncer {
  return new RedisLabelAnnouncer(options);
}
