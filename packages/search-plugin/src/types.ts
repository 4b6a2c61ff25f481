import type { Match } from "@lim/contracts";
import type { Log } from "@lim/coordination";

export interface SearchPluginOptions {
  redis: { url: string };
  /** Without it there is no exact search and no match by face id. */
  facesDb?: { connectionString: string };
  descriptorVersion?: number;
  dim?: number;
  /** Lists up to this size may be searched exactly; default 50000. */
  exactMaxFaces?: number;
  /** Lists up to this size are searched exactly although a matcher serves them; 0 never. See `defaultExactFirstFaces`. */
  exactFirstFaces?: number;
  /** Bytes of all lists kept for exact search; default 1 GiB. */
  exactCacheBytes?: number;
  matchStreamPrefix?: string;
  defaultTimeoutMs?: number;
  log?: Log;
}

export type Reference = { descriptor: Float32Array } | { faceId: string };

/** Milliseconds. On the index path prepare, queue, search and transport make up the total. */
export interface MatchTimings {
  /** Measured here, from the call's beginning to this answer. */
  totalMs: number;
  /** Measured here: until the request was sent (the last time), or its exact search began. */
  prepareMs: number;
  /** Told by the matcher, by Redis' clock: in the stream until it was read. Null on the exact path. */
  queueMs: number | null;
  /** Measured here: until the list in memory was loaded or brought to the present. Null on the index path. */
  followMs: number | null;
  /** Told by the matcher, of the batch that the request was searched in; on the exact path measured here. */
  searchMs: number;
  /** Measured here: what is left of the time since it was sent: Redis, network, waits in both processes. Null on the exact path. */
  transportMs: number | null;
}

export interface MatchAnswer {
  /** Best first. */
  matches: Match[];
  path: "index" | "exact";
  /** Null on the exact path. */
  indexId: string | null;
  /** Every change of the list up to it is in the answer. */
  revision: number;
  /** How often the request was sent to matchers; 0 on the exact path. */
  sends: number;
  timings: MatchTimings;
}

export interface MatchQuery {
  label: string;
  /** At most `maxReferences`. Descriptors need not be of unit norm; they are not changed. */
  references: readonly Reference[];
  /** 1 to 1000, default 10. */
  limit?: number;
  /** Lowest similarity, 0 to 1, default 0. */
  threshold?: number;
  /** Deadline of the whole call, at most 30000. */
  timeoutMs?: number;
  /** Answers are computed on this revision of the list or a later one. */
  minRevision?: number;
  signal?: AbortSignal;
  lunaRequestId?: string;
}

/** One index of one label at one matcher. */
export interface ServedIndex {
  label: string;
  matcherId: string;
  indexId: string;
  /** As of the matcher's last renewal of its label key, some seconds ago. */
  revision: number;
  faces: number;
  descriptorVersion: number;
  dim: number;
}

/** Counts since the plugin was made, for the platform's own metrics. */
export interface PluginStats {
  /** References answered by matchers. */
  indexAnswers: number;
  /** References answered by exact search here. */
  exactAnswers: number;
  /** Those of them that were asked of matchers first, which were silent or failed. */
  exactFallbacks: number;
  /** Times that an answered request had been sent again. */
  resends: number;
  /** Calls that threw, cancelled ones included. */
  failedCalls: number;
}

/** What a face platform embeds. */
export interface SearchPlugin {
  /**
   * One answer a reference, in order. Throws LimError: not_served (no matcher, and too large or no database for exact
   * search), request_expired, descriptor_version_mismatch, bad_input, list_not_found, not_found (face id), index_behind
   * (minRevision), dead_lettered, engine_failed, overloaded, redis_unavailable, postgres_unavailable, aborted.
   */
  match(query: MatchQuery): Promise<MatchAnswer[]>;
  /** What is served now, by whom, at which revision. */
  labels(): ServedIndex[];
  stats(): PluginStats;
  /** Ends calls under way (aborted) and all connections. */
  close(): Promise<void>;
}
