import {
  decodeDescriptor,
  LimError,
  type Match,
  type MatchReply,
  type MatchRequestFields,
  normalize,
} from "@lim/contracts";
import type { MatchEntry } from "@lim/coordination";

/** A request that can be searched: its vector has unit norm. */
export interface MatchQuery {
  entry: MatchEntry;
  fields: MatchRequestFields;
  vector: Float32Array;
}

/** Throws bad_match_request or descriptor_version_mismatch. */
export function queryOf(entry: MatchEntry, served: { descriptorVersion: number; dim: number }): MatchQuery {
  if ("invalid" in entry.request) throw new LimError("bad_match_request", entry.request.invalid);
  const { fields, descriptor } = entry.request;
  const { descriptorVersion, vector } = decodeDescriptor(descriptor);
  if (descriptorVersion !== served.descriptorVersion)
    throw new LimError(
      "descriptor_version_mismatch",
      `descriptor has version ${descriptorVersion}, served is ${served.descriptorVersion}`,
    );
  const fault = normalize(vector, served.dim);
  if (fault === "wrong_length")
    throw new LimError("bad_match_request", `descriptor has ${vector.length} dimensions, not ${served.dim}`);
  if (fault) throw new LimError("bad_match_request", `descriptor is unusable: ${fault}`);
  return { entry, fields, vector };
}

/** The first `limit` of `matches` (best first) that reach the threshold. */
export function cut(matches: readonly Match[], fields: { limit: number; threshold: number }): Match[] {
  const result: Match[] = [];
  for (const match of matches) {
    if (result.length === fields.limit || match[1] < fields.threshold) break;
    result.push(match);
  }
  return result;
}

export interface AnswerSource {
  indexId: string;
  /** Every change up to it was in what was searched. */
  revision: number;
  searchMs: number;
}

export function matchReply(query: MatchQuery, result: Match[], source: AnswerSource): MatchReply {
  return {
    rid: query.fields.rid,
    status_code: 200,
    result,
    error: null,
    index_id: source.indexId,
    revision: source.revision,
    timings: { queue_ms: Math.max(0, query.entry.waitedMs), search_ms: source.searchMs },
  };
}

export function errorReply(
  entry: MatchEntry,
  error: LimError,
  source?: { indexId: string; revision: number },
): MatchReply {
  return {
    rid: entry.rid ?? "",
    status_code: error.httpStatus,
    result: [],
    error: error.toBody(),
    index_id: source?.indexId ?? null,
    revision: source?.revision ?? null,
    timings: null,
  };
}
