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
  /** Bytes of all lists kept for exact search; default 1 GiB. */
  exactCacheBytes?: number;
  matchStreamPrefix?: string;
  defaultTimeoutMs?: number;
  log?: Log;
}

export type Reference = { descriptor: Float32Array } | { faceId: string };

export interface MatchAnswer {
  /** Best first. */
  matches: Match[];
  path: "index" | "exact";
  /** Null on the exact path. */
  indexId: string | null;
  revision: number;
  timings: { totalMs: number; queueMs: number | null; searchMs: number };
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

/** What a face platform embeds. */
export interface SearchPlugin {
  /**
   * One answer a reference, in order. Throws LimError: not_served (no matcher, and too large or no database for exact
   * search), request_expired, descriptor_version_mismatch, bad_input, list_not_found, not_found (face id), index_behind
   * (minRevision), overloaded, redis_unavailable, postgres_unavailable, aborted.
   */
  match(query: MatchQuery): Promise<MatchAnswer[]>;
  /** What is served now, by whom, at which revision. */
  labels(): { label: string; matcherId: string; indexId: string; revision: number }[];
  close(): Promise<void>;
}
