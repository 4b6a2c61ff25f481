import {
  decodeDescriptorInto,
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

/** Vectors of a batch in one array, so that its search takes them as they lie. */
export class QueryMatrix {
  readonly #vectors: Float32Array;
  readonly #bytes: Uint8Array;
  readonly #dim: number;
  #count = 0;

  constructor(rows: number, dim: number) {
    this.#vectors = new Float32Array(rows * dim);
    this.#bytes = new Uint8Array(this.#vectors.buffer);
    this.#dim = dim;
  }

  /** Throws bad_match_request or descriptor_version_mismatch. */
  add(entry: MatchEntry, servedVersion: number): MatchQuery {
    if ("invalid" in entry.request) throw new LimError("bad_match_request", entry.request.invalid);
    const { fields, descriptor } = entry.request;
    const matrix = { bytes: this.#bytes, dim: this.#dim };
    const { descriptorVersion, dim } = decodeDescriptorInto(matrix, this.#count, descriptor);
    if (descriptorVersion !== servedVersion)
      throw new LimError(
        "descriptor_version_mismatch",
        `descriptor has version ${descriptorVersion}, served is ${servedVersion}`,
      );
    if (dim !== this.#dim)
      throw new LimError("bad_match_request", `descriptor has ${dim} dimensions, not ${this.#dim}`);
    const vector = this.#vectors.subarray(this.#count * dim, (this.#count + 1) * dim);
    const fault = normalize(vector, dim);
    if (fault) throw new LimError("bad_match_request", `descriptor is unusable: ${fault}`);
    this.#count++;
    return { entry, fields, vector };
  }
}

/** The vectors of `queries` one after another: as they lie where they follow each other in one matrix, else copied. */
export function matrixOf(queries: readonly MatchQuery[], dim: number): Float32Array {
  const first = queries[0]?.vector ?? new Float32Array(0);
  if (queries.every(({ vector }, i) => follows(vector, first, i)))
    return new Float32Array(first.buffer, first.byteOffset, queries.length * dim);
  const matrix = new Float32Array(queries.length * dim);
  for (const [i, { vector }] of queries.entries()) matrix.set(vector, i * dim);
  return matrix;
}

function follows(vector: Float32Array, first: Float32Array, i: number): boolean {
  return vector.buffer === first.buffer && vector.byteOffset === first.byteOffset + i * first.byteLength;
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
