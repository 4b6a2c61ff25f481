import { type LabelKeyValue, labelKeyValueSchema } from "@lim/contracts";
import type { Redis } from "ioredis";
import { clusterOf, commandClient, pipelined } from "../connection.ts";
import { guarded, redisFailure } from "../failures.ts";
import { fixedKeys } from "../keys.ts";
import type { Log } from "../log.ts";
import { loadScript, runScript } from "../lua.ts";
import type { Cancellable, LabelWatcher, RedisConnection, ServedLabel } from "../port.ts";
import { withdrawnKey } from "./keys.ts";

/** Served labels times matchers that a watcher follows. */
const maxMembers = 20_000;
const valuesPerCommand = 500;

const readScript = loadScript("label_read", (reply) => {
  const [now, flat] = reply as [string, string[]];
  const expiries = new Map<string, number>();
  for (let i = 0; i + 1 < flat.length; i += 2) expiries.set(flat[i] as string, Number(flat[i + 1]));
  return { redisNowMs: Number(now), expiries };
});

interface Seen {
  served: ServedLabel;
  /** By Redis' clock. */
  expiresAtMs: number;
  /** By performance.now(). */
  seenAtMs: number;
}

/**
 * See the port. A member that vanishes was either withdrawn (it is named as such), or has expired (its matcher is
 * dead): then it is dropped. Else Redis lost it, and it is kept for one TTL, in which a living matcher sets it again.
 */
class PollingLabelWatcher implements LabelWatcher {
  readonly #redis: RedisConnection;
  readonly #client: Redis;
  readonly #ttlMs: number;
  readonly #pollMs: number;
  readonly #log: Log | undefined;
  #seen = new Map<string, Seen>();
  #labels: ReadonlyMap<string, readonly ServedLabel[]> = new Map();
  #polling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failing = false;
  #closed = false;

  constructor(options: { redis: RedisConnection; ttlMs: number; pollMs: number; log?: Log }) {
    this.#redis = options.redis;
    this.#client = commandClient(options.redis);
    this.#ttlMs = options.ttlMs;
    this.#pollMs = options.pollMs;
    this.#log = options.log;
    this.#schedule();
  }

  served(label: string): readonly ServedLabel[] {
    return this.#labels.get(label) ?? [];
  }

  labels(): ReadonlyMap<string, readonly ServedLabel[]> {
    return this.#labels;
  }

  refresh(options?: Cancellable): Promise<void> {
    this.#polling ??= this.#poll().finally(() => {
      this.#polling = undefined;
    });
    const polling = this.#polling;
    return guarded("labels", options?.signal, () => polling);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#polling?.catch(() => {});
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(async () => {
      // Said once, where it begins to fail.
      await this.refresh().catch(() => {});
      this.#schedule();
    }, this.#pollMs);
  }

  async #poll(): Promise<void> {
    try {
      const live = await runScript(this.#client, readScript, {
        keys: [fixedKeys.labels],
        args: [maxMembers],
      });
      // Read after the live ones: a withdrawal names itself before it removes.
      const withdrawn = await runScript(this.#client, readScript, {
        keys: [withdrawnKey],
        args: [maxMembers],
      });
      const values = await this.#valuesOf([...live.expiries.keys()]);
      this.#merge(live, withdrawn.expiries, values);
      this.#failing = false;
    } catch (thrown) {
      this.#forgetUnseen(performance.now());
      if (!this.#failing) this.#log?.warn({ reason: String(thrown) }, "served labels cannot be read");
      this.#failing = true;
      throw thrown;
    }
  }

  #merge(
    live: { redisNowMs: number; expiries: ReadonlyMap<string, number> },
    withdrawn: ReadonlyMap<string, number>,
    values: ReadonlyMap<string, LabelKeyValue>,
  ): void {
    const now = performance.now();
    const next = new Map<string, Seen>();
    for (const [member, expiresAtMs] of live.expiries) {
      const value = values.get(member);
      // Listed without its key: it is being withdrawn or has just expired.
      if (!value || withdrawn.has(member)) continue;
      const bar = member.indexOf("|");
      const served = { label: member.slice(0, bar), matcherId: member.slice(bar + 1), value };
      next.set(member, { served, expiresAtMs, seenAtMs: now });
    }
    for (const [member, seen] of this.#seen) {
      const lost = !live.expiries.has(member) && !withdrawn.has(member) && seen.expiresAtMs > live.redisNowMs;
      if (lost && now - seen.seenAtMs < this.#ttlMs) next.set(member, seen);
    }
    this.#replace(next);
  }

  /** Redis is away: the last view holds for one TTL. */
  #forgetUnseen(now: number): void {
    this.#replace(new Map([...this.#seen].filter(([, seen]) => now - seen.seenAtMs < this.#ttlMs)));
  }

  #replace(next: Map<string, Seen>): void {
    this.#seen = next;
    const labels = new Map<string, ServedLabel[]>();
    for (const { served } of next.values()) {
      const matchers = labels.get(served.label);
      if (matchers) matchers.push(served);
      else labels.set(served.label, [served]);
    }
    this.#labels = labels;
  }

  async #valuesOf(members: readonly string[]): Promise<Map<string, LabelKeyValue>> {
    const found = new Map<string, LabelKeyValue>();
    for (let at = 0; at < members.length; at += valuesPerCommand) {
      const chunk = members.slice(at, at + valuesPerCommand);
      const texts = await guarded("label keys", undefined, () => this.#textsOf(chunk.map(labelKeyOf)));
      chunk.forEach((member, i) => {
        const value = parseValue(texts[i]);
        if (value) found.set(member, value);
        else if (texts[i]) this.#log?.warn({ member }, "a label key with an unreadable value was left out");
      });
    }
    return found;
  }

  /** One MGET for many keys; in a Redis Cluster they lie in many slots. */
  async #textsOf(keys: readonly string[]): Promise<(string | null)[]> {
    if (!clusterOf(this.#redis)) return this.#client.mget([...keys]);
    const replies = await pipelined(
      this.#redis,
      keys.map((key) => ["get", key]),
    );
    return replies.map(([error, text]) => {
      if (error) throw redisFailure(error, "label keys");
      return text as string | null;
    });
  }
}

function labelKeyOf(member: string): string {
  const bar = member.indexOf("|");
  return fixedKeys.labelKey(member.slice(0, bar), member.slice(bar + 1));
}

function parseValue(text: string | null | undefined): LabelKeyValue | undefined {
  if (!text) return undefined;
  try {
    const parsed = labelKeyValueSchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

export function createLabelWatcher(options: {
  redis: RedisConnection;
  /** How long the last view is kept when everything vanishes together; the announcers' TTL. */
  ttlMs: number;
  pollMs: number;
  log?: Log;
}): LabelWatcher {
  return new PollingLabelWatcher(options);
}
