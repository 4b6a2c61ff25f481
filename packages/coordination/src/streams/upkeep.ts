import { limits } from "@lim/contracts";
import type { Redis } from "ioredis";
import { redisFailure } from "../failures.ts";
import type { Keys } from "../keys.ts";
import type { Log } from "../log.ts";
import { loadScript, runScript } from "../lua.ts";
import type { RedisClock } from "./clock.ts";
import type { HeldEntry } from "./entry.ts";

/** An entry that nobody touched for so long is abandoned: its consumer renews what it holds several times in that time. */
export const abandonedAfterMs = limits.defaultMatchTimeoutMs / 2;
/** Idle time of what is handed back, so that any living consumer takes it at its next look. */
const handedBackIdleMs = 3_600_000;
/** A consumer that asked for nothing for so long belongs to a dead process. */
const deadConsumerIdleMs = 60_000;
/** A living consumer that holds nothing reads every second. */
const silentConsumerIdleMs = 10_000;
/** Entries below what can still be alive are cut off, this far below. */
const trimMarginMs = 30_000;
/** Abandoned entries that one claim looks at. */
const claimScan = 64;

const claimScript = loadScript("stream_claim", (reply) => {
  const [claimed, gone] = reply as [(string | number)[], string[]];
  const entries: { id: string; deliveries: number }[] = [];
  for (let i = 0; i + 1 < claimed.length; i += 2)
    entries.push({ id: String(claimed[i]), deliveries: Number(claimed[i + 1]) });
  return { entries, gone };
});
const renewScript = loadScript("stream_renew", (reply) => reply as string[]);
const handBackScript = loadScript("stream_hand_back", Number);
const leaveScript = loadScript("stream_leave", Number);
const sweepScript = loadScript("stream_sweep", Number);

export interface ClaimedEntry {
  id: string;
  deliveries: number;
  fields: Buffer[];
}

/** What keeps a group healthy besides reading: each call is one round trip or two, and safe to repeat. */
export class StreamUpkeep {
  readonly #client: Redis;
  readonly #keys: Keys;
  readonly #consumerName: string;
  readonly #log: Log | undefined;

  constructor(client: Redis, keys: Keys, consumerName: string, log: Log | undefined) {
    this.#client = client;
    this.#keys = keys;
    this.#consumerName = consumerName;
    this.#log = log;
  }

  /** Abandoned entries, now this consumer's: at most `maxUnread` that no search has seen, and one that was delivered before. */
  async claim(
    label: string,
    options: { maxUnread: number; suspect: boolean },
  ): Promise<{ entries: ClaimedEntry[]; gone: number }> {
    const { entries, gone } = await runScript(this.#client, claimScript, {
      keys: [this.#keys.matchStream(label)],
      args: [
        ...this.#who(),
        abandonedAfterMs,
        Math.max(0, options.maxUnread),
        options.suspect ? 1 : 0,
        claimScan,
      ],
    });
    if (gone.length > 0)
      this.#log?.warn(
        { label, entries: gone.length },
        "pending entries were deleted before they were answered",
      );
    return { entries: await this.#fieldsOf(label, entries), gone: gone.length };
  }

  /** Renews the idle time of what is held; returns the ids that are no longer this consumer's. */
  async renew(label: string, entries: readonly HeldEntry[]): Promise<string[]> {
    const now = performance.now();
    const lost = await runScript(this.#client, renewScript, {
      keys: [this.#keys.matchStream(label)],
      args: [...this.#who(), ...entries.map((entry) => entry.entryId)],
    });
    for (const entry of entries) entry.touchedAtMs = now;
    return lost;
  }

  async handBack(label: string, entryIds: readonly string[]): Promise<void> {
    if (entryIds.length === 0) return;
    await runScript(this.#client, handBackScript, {
      keys: [this.#keys.matchStream(label)],
      args: [...this.#who(), handedBackIdleMs, ...entryIds],
    });
  }

  /** Deletes this consumer where it holds nothing, and with the last one the stream. */
  async leave(label: string, silentMs = silentConsumerIdleMs): Promise<void> {
    await runScript(this.#client, leaveScript, {
      keys: [this.#keys.matchStream(label)],
      args: [...this.#who(), silentMs],
    });
  }

  /** Deletes dead consumers that hold nothing, and entries so old that nobody waits for them. */
  async sweep(label: string, clock: RedisClock): Promise<void> {
    const stream = this.#keys.matchStream(label);
    const deleted = await runScript(this.#client, sweepScript, {
      keys: [stream],
      args: [...this.#who(), deadConsumerIdleMs],
    });
    if (deleted > 0)
      this.#log?.info({ label, consumers: deleted }, "consumers of dead processes were removed");
    const minId = Math.floor(clock.nowMs()) - limits.maxMatchTimeoutMs - trimMarginMs;
    try {
      const trimmed = await this.#client.xtrim(stream, "MINID", minId);
      if (trimmed > 0)
        this.#log?.warn({ label, entries: trimmed }, "entries that nobody read in time were cut off");
    } catch (thrown) {
      throw redisFailure(thrown, "XTRIM");
    }
  }

  #who(): [string, string] {
    return [this.#keys.names.consumerGroup, this.#consumerName];
  }

  /** Scripts answer in text, descriptors are bytes: so the fields are read apart. */
  async #fieldsOf(
    label: string,
    entries: readonly { id: string; deliveries: number }[],
  ): Promise<ClaimedEntry[]> {
    if (entries.length === 0) return [];
    const pipeline = this.#client.pipeline();
    for (const { id } of entries) pipeline.xrangeBuffer(this.#keys.matchStream(label), id, id);
    const results = await pipeline.exec().catch((thrown: unknown) => {
      throw redisFailure(thrown, "XRANGE");
    });
    const found: ClaimedEntry[] = [];
    entries.forEach((entry, at) => {
      const [error, rows] = results?.[at] ?? [];
      if (error) throw redisFailure(error, "XRANGE");
      const row = (rows as [Buffer, Buffer[]][] | undefined)?.[0];
      // Deleted between the two commands: its caller is gone, and the acknowledgement follows at the next claim.
      if (row) found.push({ ...entry, fields: row[1] });
    });
    return found;
  }
}
