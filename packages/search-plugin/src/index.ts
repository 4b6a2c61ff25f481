import type { Match } from "@lim/contracts";

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

/** What a face platform embeds. */
export interface SearchPlugin {
  /**
   * One answer a reference, in order. Throws LimError: not_served (no matcher, and too large or no database for exact
   * search), request_expired, descriptor_version_mismatch, bad_input, not_found (face id), redis_unavailable, aborted.
   */
  match(query: {
    label: string;
    references: readonly Reference[];
    limit?: number;
    threshold?: number;
    timeoutMs?: number;
    minRevision?: number;
    signal?: AbortSignal;
  }): Promise<MatchAnswer[]>;
  /** What is served now, by whom, at which revision. */
  labels(): { label: string; matcherId: string; indexId: string; revision: number }[];
  close(): Promise<void>;
}

export declare function createSearchPlugin(options: SearchPluginOptions): Promise<SearchPlugin>;
