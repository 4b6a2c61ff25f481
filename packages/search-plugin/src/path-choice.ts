import type { ErrorName, LimError } from "@lim/contracts";
import type { LabelWatcher } from "@lim/coordination";
import type { ExactSearch } from "./exact-search.ts";

export type PathName = "index" | "exact";

/** Failures of the index path that exact search may still answer. */
const rescuedByExact: readonly ErrorName[] = [
  "not_served",
  "redis_unavailable",
  "request_expired",
  "dead_lettered",
  "engine_failed",
  // A matcher that does not follow its list; exact search always does.
  "index_behind",
];
/** Failures of exact search with which no matcher would fare better. */
const finalOfExact: readonly ErrorName[] = ["aborted", "request_expired", "bad_input", "list_not_found"];
/** After a failure the other path goes first for so long. */
const redisRestMs = 1_000;
const exactRestMs = 2_000;
/** A small list is searched within milliseconds; where it takes longer than this its matcher is asked as well. */
const exactPatienceMs = 250;
const exactPatienceShare = 0.3;
/** Half of the deadline is left to load a list and search it. */
const indexPatienceShare = 0.5;

/** Which way a label's matches go, by its label keys, its size and what failed lately. */
export class PathChoice {
  readonly #watcher: LabelWatcher;
  readonly #exact: ExactSearch | undefined;
  readonly #exactMaxFaces: number;
  readonly #exactFirstFaces: number;
  #exactRestsUntilMs = 0;
  #redisRestsUntilMs = 0;

  constructor(options: {
    watcher: LabelWatcher;
    exact: ExactSearch | undefined;
    exactMaxFaces: number;
    exactFirstFaces: number;
  }) {
    this.#watcher = options.watcher;
    this.#exact = options.exact;
    this.#exactMaxFaces = options.exactMaxFaces;
    this.#exactFirstFaces = options.exactFirstFaces;
  }

  /** In the order in which they are tried. */
  pathsOf(label: string): [PathName] | [PathName, PathName] {
    let faces = -1;
    for (const { value } of this.#watcher.served(label)) faces = Math.max(faces, value.count);
    if (faces < 0) return ["exact"];
    if (!this.#exact || faces > this.#exactMaxFaces) return ["index"];
    const now = performance.now();
    if (now < this.#redisRestsUntilMs) return ["exact", "index"];
    const isSmall = faces <= this.#exactFirstFaces && now >= this.#exactRestsUntilMs;
    // A list that is not in memory yet is read beside: its matcher answers meanwhile.
    return isSmall && this.#exact.isReady(label, faces) ? ["exact", "index"] : ["index", "exact"];
  }

  patienceMs(first: PathName, timeoutMs: number): number {
    if (first === "index") return timeoutMs * indexPatienceShare;
    return Math.min(timeoutMs * exactPatienceShare, exactPatienceMs);
  }

  mayRescue(first: PathName, error: LimError): boolean {
    return first === "index"
      ? rescuedByExact.includes(error.errorName)
      : !finalOfExact.includes(error.errorName);
  }

  /** The first of two paths was silent, or failed with `error`. */
  noteFailure(first: PathName, error: LimError | undefined): void {
    const now = performance.now();
    if (first === "exact") this.#exactRestsUntilMs = now + exactRestMs;
    else if (error?.errorName === "redis_unavailable") this.#redisRestsUntilMs = now + redisRestMs;
  }
}
