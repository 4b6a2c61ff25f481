import { isLimError, LimError } from "@lim/contracts";
import type { FacesDb, FeedGap, ListSnapshot } from "@lim/faces-db";
import { createExactIndex, type ExactIndex } from "@lim/vector-index";

/** Faces of one packet of changes: the feed's promise of ten is the matchers', here the fewest queries count. */
const packetFaces = 500;
/** Longest that one packet, and that a whole list, may take to come: a database that hangs must not hold the list for ever. */
const packetLimitMs = 10_000;
const loadLimitMs = 120_000;

export interface ListShape {
  descriptorVersion: number;
  dim: number;
}

/** The feed does not lead from the held revision to the present: the list must be loaded anew. */
export class FeedBroken extends Error {
  readonly gap: FeedGap;

  constructor(gap: FeedGap) {
    super(`feed of the list cannot be followed: ${gap}`);
    this.gap = gap;
  }
}

/** One list in memory, as of `revision`. */
export class ExactList {
  readonly listId: string;
  readonly index: ExactIndex;
  /** Searches under way; memory is handed back when the last ends. */
  users = 0;
  readonly #db: FacesDb;
  readonly #shape: ListShape;
  readonly #historyId: string;
  readonly #signal: AbortSignal;
  #revision: number;
  #current: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  private constructor(
    db: FacesDb,
    shape: ListShape,
    snapshot: ListSnapshot,
    index: ExactIndex,
    signal: AbortSignal,
  ) {
    this.listId = snapshot.listId;
    this.index = index;
    this.#db = db;
    this.#shape = shape;
    this.#historyId = snapshot.historyId;
    this.#revision = snapshot.revision;
    this.#signal = signal;
  }

  get revision(): number {
    return this.#revision;
  }

  /** Reads the whole list. `signal` ends the load and everything later. */
  static async load(db: FacesDb, shape: ListShape, listId: string, signal: AbortSignal): Promise<ExactList> {
    return within(loadLimitMs, signal, (limited) => ExactList.#read(db, shape, listId, signal, limited));
  }

  static async #read(
    db: FacesDb,
    shape: ListShape,
    listId: string,
    signal: AbortSignal,
    limited: AbortSignal,
  ): Promise<ExactList> {
    const snapshot = await db.openSnapshot({ listId, ...shape, signal: limited });
    const index = createExactIndex({ dim: shape.dim, capacity: snapshot.faceCount });
    try {
      for await (const batch of snapshot.batches) index.upsertMany(batch.faceIds, batch.vectors);
      return new ExactList(db, shape, snapshot, index, signal);
    } catch (thrown) {
      await index.close();
      throw thrown;
    } finally {
      await snapshot.close();
    }
  }

  /**
   * Brings the list to what was committed when it was called. One catch-up runs at a time, and one more is shared by
   * all who came meanwhile: a catch-up that had begun before a caller's own change may have missed it.
   */
  catchUp(): Promise<void> {
    if (!this.#current) {
      this.#current = this.#follow().finally(() => {
        this.#current = undefined;
      });
      return this.#current;
    }
    this.#next ??= this.#current
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return this.catchUp();
      });
    return this.#next;
  }

  async #follow(): Promise<void> {
    let target = 0;
    do {
      const packet = await within(packetLimitMs, this.#signal, (signal) =>
        this.#db.readPacket({
          listId: this.listId,
          historyId: this.#historyId,
          sinceRevision: this.#revision,
          ...this.#shape,
          maxFaces: packetFaces,
          signal,
        }),
      );
      if (packet.kind === "up_to_date") return;
      if (packet.kind === "gap") throw new FeedBroken(packet.gap);
      this.#apply(packet.upserts, packet.removals);
      this.#revision = packet.toRevision;
      // The head of the first packet is as new as the call; a list that never rests must not hold it for ever.
      if (target === 0) target = packet.headRevision;
    } while (this.#revision < target);
  }

  #apply(upserts: { faceId: string; vector: Float32Array }[], removals: string[]): void {
    try {
      if (removals.length > 0) this.index.remove(removals);
      if (upserts.length > 0) this.index.upsert(upserts);
    } catch (thrown) {
      // Full of old versions: a fresh one holds the same faces.
      if (isLimError(thrown, "overloaded")) throw new FeedBroken("compacted");
      throw thrown;
    }
  }
}

/** Work with a time limit of its own, past which it fails as postgres_unavailable. */
async function within<T>(
  limitMs: number,
  stop: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const onStop = () => controller.abort(stop.reason);
  if (stop.aborted) onStop();
  stop.addEventListener("abort", onStop, { once: true });
  const late = new LimError("postgres_unavailable", `no answer within ${limitMs} ms`);
  const timer = setTimeout(() => controller.abort(late), limitMs);
  try {
    return await work(controller.signal);
  } catch (thrown) {
    throw controller.signal.reason === late ? late : thrown;
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", onStop);
  }
}
