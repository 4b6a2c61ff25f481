import { LimError, type Match, uuidBytes } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { Deadline } from "./deadline.ts";
import { ExactList, FeedBroken, type ListShape } from "./exact-list.ts";

const maxConcurrentLoads = 2;
/** Waiting for one of them. */
const maxWaitingLoads = 64;
/** A list found too large is looked at again after this. */
const refusalHoldsMs = 1_000;
const maxHeldRefusals = 10_000;
/** Memory of a list comes in pieces of this size. */
const leastListBytes = 1 << 20;
/** Loads of one call: a feed that breaks again and again is an error. */
const maxLoadsPerCall = 3;

export interface ExactLimits {
  maxFaces: number;
  cacheBytes: number;
}

interface Loading {
  list: Promise<ExactList>;
  reservedBytes: number;
}

/**
 * Lists held in memory for exact search, least recently used ones dropped past a limit of bytes. A list is read from
 * the database once, whatever the number of callers, and then kept current by its feed of changes.
 */
export class ExactSearch {
  readonly #db: FacesDb;
  readonly #shape: ListShape;
  readonly #limits: ExactLimits;
  /** Least recently used first. */
  readonly #lists = new Map<string, ExactList>();
  readonly #loading = new Map<string, Loading>();
  /** Dropped while searches still ran on them: their memory counts until they end. */
  readonly #leaving = new Set<ExactList>();
  readonly #refusals = new Map<string, { error: LimError; untilMs: number }>();
  readonly #stop = new AbortController();
  #loads = 0;
  #waitingLoads: (() => void)[] = [];

  constructor(db: FacesDb, shape: ListShape, limits: ExactLimits) {
    this.#db = db;
    this.#shape = shape;
    this.#limits = limits;
  }

  /** Bytes held, loads under way included. */
  get bytes(): number {
    let bytes = 0;
    for (const list of this.#lists.values()) bytes += list.index.memoryBytes;
    for (const list of this.#leaving) bytes += list.index.memoryBytes;
    for (const { reservedBytes } of this.#loading.values()) bytes += reservedBytes;
    return bytes;
  }

  get heldLists(): readonly string[] {
    return [...this.#lists.keys()];
  }

  /** Whether the list is in memory; where it is not and would find room, it is read from now on. */
  isReady(listId: string, faces: number): boolean {
    if (this.#lists.has(listId)) return true;
    const isRefused = (this.#refusals.get(listId)?.untilMs ?? 0) > performance.now();
    const bytes = Math.max(leastListBytes, this.#bytesOf(faces));
    if (isRefused || this.#loading.has(listId) || this.bytes + bytes > this.#limits.cacheBytes) return false;
    if (this.#waitingLoads.length === 0) this.#load(listId).catch(() => {});
    return false;
  }

  /**
   * Searches the list as of the call or later. `queries` is n × dim, unit norm. Throws not_served where the list
   * is too large, list_not_found, index_behind where `minRevision` is past the list's newest.
   */
  async search(
    listId: string,
    queries: Float32Array,
    options: { limit: number; threshold: number; minRevision: number | undefined; deadline: Deadline },
  ): Promise<{ matches: Match[][]; revision: number; followMs: number; searchMs: number }> {
    const { deadline, minRevision } = options;
    const followFromMs = performance.now();
    const list = await this.#current(listId, deadline);
    try {
      const revision = list.revision;
      if (minRevision !== undefined && revision < minRevision)
        throw new LimError("index_behind", `list ${listId} is at revision ${revision}, not ${minRevision}`);
      const startedAtMs = performance.now();
      const matches = await list.index.search(queries, {
        limit: options.limit,
        threshold: options.threshold,
        signal: deadline.signal,
      });
      return {
        matches,
        revision,
        followMs: startedAtMs - followFromMs,
        searchMs: performance.now() - startedAtMs,
      };
    } finally {
      this.#leave(list);
    }
  }

  async close(): Promise<void> {
    this.#stop.abort(new LimError("aborted", "the search plugin was closed"));
    for (const wake of this.#waitingLoads.splice(0)) wake();
    await Promise.allSettled([...this.#loading.values()].map(({ list }) => list));
    const lists = [...this.#lists.values(), ...this.#leaving];
    this.#lists.clear();
    this.#leaving.clear();
    await Promise.all(lists.map((list) => list.index.close()));
  }

  /** The list, brought up to date and entered as a user. */
  async #current(listId: string, deadline: Deadline): Promise<ExactList> {
    for (let loads = 0; loads < maxLoadsPerCall; ) {
      if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
      let list = this.#lists.get(listId);
      if (!list) {
        loads++;
        list = await deadline.race(this.#load(listId));
        // Dropped again before this caller came to its turn.
        if (this.#lists.get(listId) !== list) continue;
      }
      list.users++;
      try {
        await deadline.race(list.catchUp());
        if (list.index.count > this.#limits.maxFaces) {
          this.#drop(list);
          throw this.#refuse(listId, this.#tooLarge(list.index.count));
        }
        this.#touch(list);
        return list;
      } catch (thrown) {
        this.#leave(list);
        if (!(thrown instanceof FeedBroken)) throw thrown;
        this.#drop(list);
        if (thrown.gap === "list_deleted") throw deletedError(listId);
      }
    }
    throw new LimError(
      "overloaded",
      `list ${listId} could not be kept in memory, tried ${maxLoadsPerCall} times`,
    );
  }

  #load(listId: string): Promise<ExactList> {
    const running = this.#loading.get(listId);
    if (running) return running.list;
    const loading: Loading = {
      list: this.#loadOnce(listId, (bytes) => this.#reserve(loading, bytes)),
      reservedBytes: 0,
    };
    this.#loading.set(listId, loading);
    // Its callers may all have given up; the load still ends, and is there for the next one.
    loading.list
      .then(
        (list) => this.#lists.set(listId, list),
        () => {},
      )
      .finally(() => {
        this.#loading.delete(listId);
        this.#evict(0);
      });
    return loading.list;
  }

  async #loadOnce(listId: string, reserve: (bytes: number) => void): Promise<ExactList> {
    const held = this.#refusals.get(listId);
    if (held && held.untilMs > performance.now()) throw held.error;
    await this.#takeLoadTurn();
    try {
      const signal = this.#stop.signal;
      if (signal.aborted) throw signal.reason;
      const [state] = await this.#db.listStates({ listIds: [listId], signal });
      if (!state) throw deletedError(listId);
      if (state.faceCount > this.#limits.maxFaces)
        throw this.#refuse(listId, this.#tooLarge(state.faceCount));
      reserve(this.#bytesOf(state.faceCount));
      return await ExactList.load(this.#db, this.#shape, listId, signal);
    } finally {
      // The turn passes on as it is, so that nobody slips in between.
      const next = this.#waitingLoads.shift();
      if (next) next();
      else this.#loads--;
    }
  }

  async #takeLoadTurn(): Promise<void> {
    if (this.#loads >= maxConcurrentLoads) {
      if (this.#waitingLoads.length >= maxWaitingLoads)
        throw new LimError("overloaded", `${maxWaitingLoads} lists wait to be loaded for exact search`);
      await new Promise<void>((resolve) => this.#waitingLoads.push(resolve));
    } else this.#loads++;
  }

  #bytesOf(faces: number): number {
    return faces * (this.#shape.dim * 4 + uuidBytes);
  }

  #reserve(loading: Loading, bytes: number): void {
    this.#evict(bytes);
    if (this.bytes + bytes > this.#limits.cacheBytes)
      throw new LimError(
        bytes > this.#limits.cacheBytes ? "not_served" : "overloaded",
        `the list needs ${bytes} bytes for exact search, of ${this.#limits.cacheBytes} in all`,
      );
    loading.reservedBytes = bytes;
  }

  /** Drops lists that nobody searches, least recently used first, until `bytes` more would fit. */
  #evict(bytes: number): void {
    for (const list of [...this.#lists.values()]) {
      if (this.bytes + bytes <= this.#limits.cacheBytes) return;
      if (list.users === 0) this.#drop(list);
    }
  }

  #touch(list: ExactList): void {
    if (this.#lists.get(list.listId) !== list) return;
    this.#lists.delete(list.listId);
    this.#lists.set(list.listId, list);
  }

  #drop(list: ExactList): void {
    if (this.#lists.get(list.listId) === list) this.#lists.delete(list.listId);
    if (list.users > 0) this.#leaving.add(list);
    else void list.index.close();
  }

  #leave(list: ExactList): void {
    list.users--;
    if (list.users > 0 || !this.#leaving.delete(list)) return;
    void list.index.close();
  }

  #tooLarge(faces: number): LimError {
    const { maxFaces } = this.#limits;
    return new LimError(
      "not_served",
      `no matcher serves the list, and with ${faces} faces it is past ${maxFaces} for exact search`,
    );
  }

  #refuse(listId: string, error: LimError): LimError {
    if (this.#refusals.size >= maxHeldRefusals) this.#refusals.clear();
    this.#refusals.set(listId, { error, untilMs: performance.now() + refusalHoldsMs });
    return error;
  }
}

function deletedError(listId: string): LimError {
  return new LimError("list_not_found", `list ${listId} does not exist`);
}
