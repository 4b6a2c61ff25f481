import { LimError } from "@lim/contracts";
import type { Call } from "./call.ts";
import type { ExactSearch } from "./exact-search.ts";
import type { MatchAnswer } from "./types.ts";

/** Matches by exact search in this process. */
export class ExactPath {
  readonly #exact: ExactSearch | undefined;
  readonly #dim: number;

  constructor(exact: ExactSearch | undefined, dim: number) {
    this.#exact = exact;
    this.#dim = dim;
  }

  /** One search for all vectors. */
  start(call: Call, vectors: readonly Float32Array[]): Promise<MatchAnswer>[] {
    const answers = this.#search(call, vectors);
    return vectors.map(async (_, at) => (await answers)[at] as MatchAnswer);
  }

  async #search(call: Call, vectors: readonly Float32Array[]): Promise<MatchAnswer[]> {
    const { query, deadline } = call;
    if (!this.#exact)
      throw new LimError(
        "not_served",
        `no matcher serves ${query.label}, and exact search needs the option facesDb`,
      );
    const prepareMs = performance.now() - call.startedAtMs;
    const queries = new Float32Array(vectors.length * this.#dim);
    for (const [at, vector] of vectors.entries()) queries.set(vector, at * this.#dim);
    const { matches, revision, followMs, searchMs } = await this.#exact.search(query.label, queries, {
      limit: query.limit,
      threshold: query.threshold,
      minRevision: query.minRevision,
      deadline,
    });
    const totalMs = performance.now() - call.startedAtMs;
    return matches.map((rows) => ({
      matches: rows,
      path: "exact",
      indexId: null,
      revision,
      sends: 0,
      timings: { totalMs, prepareMs, queueMs: null, followMs, searchMs, transportMs: null },
    }));
  }
}
