import { labelKeyValueSchema } from "@lim/contracts";
import type { Redis } from "ioredis";
import type { Findings } from "../findings.ts";
import type { ListTruth } from "./truth.ts";

/** What `GET /indexes` says, as far as it is judged. */
export interface SeenIndex {
  label: string;
  state: string;
  index_id: string | null;
  revision: number | null;
}

/** A label key as Redis has it. */
export interface SeenKey {
  label: string;
  matcherId: string;
  revision: number;
  ttlMs: number;
}

interface Label {
  revision: number;
  keyRevision: number;
  /** Since when it has been seen as served without a break; undefined while it is not. */
  sinceMs: number | undefined;
}

/** One process of a matcher, from its start to its end. */
export interface Life {
  readonly matcherId: string;
  readonly name: string;
  /** Keys of it may be left until then, by performance.now(). */
  keysUntilMs: number;
  paused: boolean;
}

/** A key outlives its matcher by this much beyond its TTL at most: the poll, and a busy machine. */
const keySlackMs = 1_500;

/** What each matcher serves, by its own word and by its label keys, and the rules for both (I8, I12). */
export class ServedWatch {
  readonly #findings: Pick<Findings, "violation" | "count">;
  readonly #truths: ReadonlyMap<string, ListTruth>;
  readonly #keyTtlMs: number;
  /** Living ones. */
  readonly #lives = new Map<Life, Map<string, Label>>();
  /** By matcher id: until when keys of the dead may be seen. */
  readonly #deadUntilMs = new Map<string, number>();

  constructor(options: {
    findings: Pick<Findings, "violation" | "count">;
    truths: ReadonlyMap<string, ListTruth>;
    keyTtlMs: number;
  }) {
    this.#findings = options.findings;
    this.#truths = options.truths;
    this.#keyTtlMs = options.keyTtlMs;
  }

  /** To be called before the process starts: all that it will serve is at least what is committed now. */
  prepare(): (matcherId: string, name: string) => Life {
    const base = new Map([...this.#truths].map(([label, truth]) => [label, truth.revision]));
    return (matcherId, name) => {
      const life: Life = { matcherId, name, keysUntilMs: Number.POSITIVE_INFINITY, paused: false };
      const labels = new Map<string, Label>();
      for (const [label, revision] of base)
        labels.set(label, { revision, keyRevision: revision, sinceMs: undefined });
      this.#lives.set(life, labels);
      return life;
    };
  }

  /** Its process has ended. `inOrder`: it withdrew its keys, and Redis heard it. */
  ended(life: Life, inOrder: boolean): void {
    this.#lives.delete(life);
    life.keysUntilMs = performance.now() + (inOrder ? 0 : this.#keyTtlMs + keySlackMs);
    this.#deadUntilMs.set(life.matcherId, life.keysUntilMs);
  }

  /** Redis takes now what the dead had sent while it stood still: their keys live for one TTL from now. */
  redisCameBack(): void {
    const untilMs = performance.now() + this.#keyTtlMs + keySlackMs;
    for (const matcherId of this.#deadUntilMs.keys()) this.#deadUntilMs.set(matcherId, untilMs);
  }

  /** Lowest revision that an answer to a request sent now may have: no living matcher is below it. */
  floor(label: string): number {
    let floor = Number.POSITIVE_INFINITY;
    for (const labels of this.#lives.values()) floor = Math.min(floor, labels.get(label)?.revision ?? 0);
    return Number.isFinite(floor) ? floor : 0;
  }

  /** Whether one and the same matcher has served the label, and was not paused, since `sinceMs`. */
  coveredSince(label: string, sinceMs: number): boolean {
    for (const [life, labels] of this.#lives) {
      const servedSinceMs = labels.get(label)?.sinceMs;
      if (!life.paused && servedSinceMs !== undefined && servedSinceMs <= sinceMs) return true;
    }
    return false;
  }

  pause(life: Life): void {
    life.paused = true;
    for (const label of this.#lives.get(life)?.values() ?? []) label.sinceMs = undefined;
  }

  resume(life: Life): void {
    life.paused = false;
  }

  /** What a matcher has just said of itself. */
  saw(life: Life, indexes: readonly SeenIndex[]): void {
    const labels = this.#lives.get(life);
    if (!labels || life.paused) return;
    const servedNow = new Set<string>();
    for (const { label, revision, index_id: indexId, state } of indexes) {
      if (revision === null || state === "failed") continue;
      servedNow.add(label);
      const seen = labels.get(label) ?? { revision: 0, keyRevision: 0, sinceMs: undefined };
      if (revision < seen.revision)
        this.#findings.violation(
          `I12: ${life.name} serves list ${label} at revision ${revision} (index ${indexId}), it was ${seen.revision} before`,
        );
      seen.revision = Math.max(seen.revision, revision);
      seen.sinceMs ??= performance.now();
      labels.set(label, seen);
    }
    for (const [label, seen] of labels) if (!servedNow.has(label)) seen.sinceMs = undefined;
    this.#findings.count("watch", "looks at matchers");
  }

  /** Label keys that Redis had at a moment that began at `readAtMs`. */
  sawKeys(keys: readonly SeenKey[], readAtMs: number): void {
    const lifeOf = new Map([...this.#lives.keys()].map((life) => [life.matcherId, life]));
    for (const { label, matcherId, revision, ttlMs } of keys) {
      // -2: it ran out between two commands.
      if (ttlMs > this.#keyTtlMs || ttlMs === -1)
        this.#findings.violation(`I8: the key of list ${label} at ${matcherId} lives for ${ttlMs} ms more`);
      const life = lifeOf.get(matcherId);
      const seen = life && this.#lives.get(life)?.get(label);
      // One that died moments ago may have left a key that its successor of the same id has not set yet.
      const inherited = this.#mayLeaveKeys(matcherId, readAtMs);
      if (!life && !inherited)
        this.#findings.violation(
          `I8: key of list ${label} at ${matcherId} is still there, though its matcher is gone`,
        );
      if (!seen || inherited) continue;
      if (revision < seen.keyRevision)
        this.#findings.violation(
          `I12: the key of list ${label} at ${matcherId} says revision ${revision}, it said ${seen.keyRevision} before`,
        );
      seen.keyRevision = Math.max(seen.keyRevision, revision);
    }
    this.#findings.count("watch", "looks at label keys");
  }

  /** One of this id has died, and keys of it could be there at that moment. */
  #mayLeaveKeys(matcherId: string, atMs: number): boolean {
    return (this.#deadUntilMs.get(matcherId) ?? Number.NEGATIVE_INFINITY) >= atMs;
  }

  /**
   * A key that was there before and after its matcher said that it does not serve the label. Only of matchers that
   * live and can reach Redis.
   */
  keyWithoutService(
    life: Life,
    before: readonly SeenKey[],
    said: readonly SeenIndex[],
    after: readonly SeenKey[],
  ): void {
    if (!this.#lives.has(life) || life.paused) return;
    if (this.#mayLeaveKeys(life.matcherId, performance.now() - this.#keyTtlMs)) return;
    const serves = new Set(said.filter(({ revision }) => revision !== null).map(({ label }) => label));
    const has = (keys: readonly SeenKey[], label: string) =>
      keys.some((key) => key.label === label && key.matcherId === life.matcherId);
    for (const { label, matcherId } of before)
      if (matcherId === life.matcherId && !serves.has(label) && has(after, label))
        this.#findings.violation(`I8: ${life.name} has a key for list ${label} and cannot serve it`);
  }
}

const askTimeoutMs = 1_000;

export async function indexesOf(url: string): Promise<SeenIndex[] | undefined> {
  try {
    const response = await fetch(`${url}/indexes`, { signal: AbortSignal.timeout(askTimeoutMs) });
    return ((await response.json()) as { indexes: SeenIndex[] }).indexes;
  } catch {
    return undefined;
  }
}

/** All label keys; undefined where Redis does not answer. */
export async function labelKeys(redis: Redis): Promise<SeenKey[] | undefined> {
  try {
    const names = await redis.keys("matching_label__*");
    const pipeline = redis.pipeline();
    for (const name of names) pipeline.get(name).pttl(name);
    const results = (await pipeline.exec()) ?? [];
    return names.flatMap((name, at) => {
      const [, label, matcherId] = name.split("__");
      const text = results[2 * at]?.[1] as string | null | undefined;
      const ttlMs = Number(results[2 * at + 1]?.[1]);
      if (label === undefined || matcherId === undefined || !text) return [];
      return [{ label, matcherId, ttlMs, revision: labelKeyValueSchema.parse(JSON.parse(text)).revision }];
    });
  } catch {
    return undefined;
  }
}
