import { randomUUID } from "node:crypto";
import { encodeDescriptor, isLimError, LimError } from "@lim/contracts";
import type { LabelWatcher, MatchClient } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import { Deadline } from "./deadline.ts";
import type { ExactSearch } from "./exact-search.ts";
import { type CheckedQuery, checkQuery } from "./query.ts";
import type { MatchAnswer, MatchQuery, SearchPlugin } from "./types.ts";

export interface PluginParts {
  watcher: LabelWatcher;
  client: MatchClient;
  /** Both or neither. */
  faces: { db: FacesDb; exact: ExactSearch } | undefined;
  settings: { dim: number; descriptorVersion: number; defaultTimeoutMs: number };
  /** Closes what the parts are made from. */
  closeConnections(): Promise<void>;
}

/** Errors of the index path that say nothing about the query: the exact path may still answer it. */
const indexPathIsAway = ["not_served", "redis_unavailable"] as const;

interface Call {
  query: CheckedQuery;
  deadline: Deadline;
  startedAtMs: number;
  lunaRequestId: string | undefined;
}

export class EmbeddedSearch implements SearchPlugin {
  readonly #parts: PluginParts;
  readonly #stop = new AbortController();
  readonly #calls = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(parts: PluginParts) {
    this.#parts = parts;
  }

  async match(query: MatchQuery): Promise<MatchAnswer[]> {
    const startedAtMs = performance.now();
    const checked = checkQuery(query, this.#parts.settings);
    const stops = query.signal ? [this.#stop.signal, query.signal] : [this.#stop.signal];
    const deadline = new Deadline(checked.timeoutMs, stops);
    const call = this.#match({ query: checked, deadline, startedAtMs, lunaRequestId: query.lunaRequestId });
    this.#calls.add(call);
    try {
      return await deadline.race(call);
    } catch (thrown) {
      throw deadline.explain(thrown);
    } finally {
      deadline.end();
      this.#calls.delete(call);
    }
  }

  labels(): { label: string; matcherId: string; indexId: string; revision: number }[] {
    const rows: { label: string; matcherId: string; indexId: string; revision: number }[] = [];
    for (const served of this.#parts.watcher.labels().values())
      for (const { label, matcherId, value } of served)
        rows.push({ label, matcherId, indexId: value.index_id, revision: value.revision });
    return rows;
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#stop.abort(new LimError("aborted", "the search plugin was closed"));
      await Promise.allSettled(this.#calls);
      await this.#parts.watcher.close();
      await this.#parts.client.close();
      await this.#parts.faces?.exact.close();
      await this.#parts.faces?.db.close();
      await this.#parts.closeConnections();
    })();
    return this.#closing;
  }

  async #match(call: Call): Promise<MatchAnswer[]> {
    if (call.deadline.signal.aborted) throw call.deadline.signal.reason;
    const vectors = await this.#vectorsOf(call);
    const served = this.#isServed(call.query.label);
    if (!served) return this.#matchExactly(call, vectors);
    const outcomes = await Promise.all(
      vectors.map((vector) =>
        this.#matchByIndex(call, vector).catch((thrown: unknown) => LimError.from(thrown)),
      ),
    );
    const away: number[] = [];
    for (const [at, outcome] of outcomes.entries()) {
      if (!(outcome instanceof LimError)) continue;
      if (!this.#parts.faces || !indexPathIsAway.some((name) => isLimError(outcome, name))) throw outcome;
      away.push(at);
    }
    if (away.length > 0) {
      const exact = await this.#matchExactly(
        call,
        away.map((at) => vectors[at] as Float32Array),
      );
      for (const [i, at] of away.entries()) outcomes[at] = exact[i] as MatchAnswer;
    }
    return outcomes as MatchAnswer[];
  }

  /** Throws descriptor_version_mismatch where the label is served, but for other descriptors only. */
  #isServed(label: string): boolean {
    const { dim, descriptorVersion } = this.#parts.settings;
    const served = this.#parts.watcher.served(label);
    const [first] = served;
    if (!first) return false;
    if (!served.some(({ value }) => value.descriptor_version === descriptorVersion && value.dim === dim))
      throw new LimError(
        "descriptor_version_mismatch",
        `the label is served for version ${first.value.descriptor_version} of ${first.value.dim} dimensions, not for version ${descriptorVersion} of ${dim}`,
      );
    return true;
  }

  async #vectorsOf({ query, deadline }: Call): Promise<Float32Array[]> {
    const { dim, descriptorVersion } = this.#parts.settings;
    const faceIds = query.references.flatMap((reference) =>
      "faceId" in reference ? [reference.faceId] : [],
    );
    const found = new Map<string, Float32Array>();
    if (faceIds.length > 0) {
      if (!this.#parts.faces) throw new LimError("bad_input", "a match by face id needs the option facesDb");
      const read = await this.#parts.faces.db.descriptorsOf({
        faceIds: [...new Set(faceIds)],
        descriptorVersion,
        signal: deadline.signal,
      });
      for (const [faceId, vector] of read) found.set(faceId, vector);
    }
    return query.references.map((reference) => {
      if ("vector" in reference) return reference.vector;
      const vector = found.get(reference.faceId);
      if (vector?.length === dim) return vector;
      throw new LimError(
        "not_found",
        `face ${reference.faceId} has no descriptor of version ${descriptorVersion} and ${dim} dimensions`,
      );
    });
  }

  async #matchByIndex(call: Call, vector: Float32Array): Promise<MatchAnswer> {
    const { query, deadline, lunaRequestId } = call;
    const reply = await this.#parts.client.request(
      {
        label: query.label,
        rid: randomUUID(),
        descriptor: encodeDescriptor(vector, this.#parts.settings.descriptorVersion),
        limit: query.limit,
        // Left out where it is what a matcher takes for granted: every field is read and checked for each request.
        ...(query.threshold === 0 ? {} : { threshold: query.threshold }),
        timeoutMs: Math.max(1, Math.floor(deadline.leftMs)),
        ...(query.minRevision === undefined ? {} : { minRevision: query.minRevision }),
        ...(lunaRequestId === undefined ? {} : { lunaRequestId }),
      },
      { signal: deadline.signal },
    );
    if (reply.error) throw LimError.fromBody(reply.error);
    if (reply.index_id === null || reply.revision === null)
      throw new LimError("internal", "a matcher's reply names no index");
    return {
      matches: reply.result,
      path: "index",
      indexId: reply.index_id,
      revision: reply.revision,
      timings: {
        totalMs: performance.now() - call.startedAtMs,
        queueMs: reply.timings?.queue_ms ?? null,
        searchMs: reply.timings?.search_ms ?? 0,
      },
    };
  }

  async #matchExactly(call: Call, vectors: readonly Float32Array[]): Promise<MatchAnswer[]> {
    const { faces, settings } = this.#parts;
    const { query, deadline } = call;
    if (!faces)
      throw new LimError(
        "not_served",
        `no matcher serves ${query.label}, and exact search needs the option facesDb`,
      );
    const queries = new Float32Array(vectors.length * settings.dim);
    for (const [at, vector] of vectors.entries()) queries.set(vector, at * settings.dim);
    const { matches, revision, searchMs } = await faces.exact.search(query.label, queries, {
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
      timings: { totalMs, queueMs: null, searchMs },
    }));
  }
}
