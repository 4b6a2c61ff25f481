import { LimError } from "@lim/contracts";
import type { LabelWatcher, MatchClient } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import type { Call } from "./call.ts";
import { Deadline } from "./deadline.ts";
import { ExactPath } from "./exact-path.ts";
import type { ExactSearch } from "./exact-search.ts";
import { IndexPath } from "./index-path.ts";
import { PathChoice, type PathName } from "./path-choice.ts";
import { checkQuery } from "./query.ts";
import { Tally } from "./tally.ts";
import { answerByTwo, tellBoth } from "./two-paths.ts";
import type { MatchAnswer, MatchQuery, PluginStats, SearchPlugin, ServedIndex } from "./types.ts";

export interface PluginParts {
  watcher: LabelWatcher;
  client: MatchClient;
  /** Both or neither. */
  faces: { db: FacesDb; exact: ExactSearch } | undefined;
  settings: {
    dim: number;
    descriptorVersion: number;
    defaultTimeoutMs: number;
    exactMaxFaces: number;
    exactFirstFaces: number;
  };
  /** Closes what the parts are made from. */
  closeConnections(): Promise<void>;
}

export class EmbeddedSearch implements SearchPlugin {
  readonly #parts: PluginParts;
  readonly #choice: PathChoice;
  readonly #index: IndexPath;
  readonly #exact: ExactPath;
  readonly #tally = new Tally();
  readonly #calls = new Map<Deadline, Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(parts: PluginParts) {
    this.#parts = parts;
    const { watcher, client, faces, settings } = parts;
    this.#choice = new PathChoice({ watcher, exact: faces?.exact, ...settings });
    this.#index = new IndexPath({
      client,
      descriptorVersion: settings.descriptorVersion,
      isServed: (label) => watcher.served(label).length > 0,
    });
    this.#exact = new ExactPath(faces?.exact, settings.dim);
  }

  async match(query: MatchQuery): Promise<MatchAnswer[]> {
    try {
      const call = this.#begin(query);
      const answers = await this.#untilOver(call);
      this.#tally.answered(call.firstPath, answers);
      return answers;
    } catch (thrown) {
      this.#tally.failed();
      throw thrown;
    }
  }

  labels(): ServedIndex[] {
    return [...this.#parts.watcher.labels().values()].flat().map(({ label, matcherId, value }) => ({
      label,
      matcherId,
      indexId: value.index_id,
      revision: value.revision,
      faces: value.count,
      descriptorVersion: value.descriptor_version,
      dim: value.dim,
    }));
  }

  stats(): PluginStats {
    return this.#tally.stats();
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      const calls = [...this.#calls];
      for (const [deadline] of calls) deadline.stop(closedError());
      await this.#parts.watcher.close();
      await this.#parts.client.close();
      await Promise.allSettled(calls.map(([, call]) => call));
      await this.#parts.faces?.exact.close();
      await this.#parts.faces?.db.close();
      await this.#parts.closeConnections();
    })();
    return this.#closing;
  }

  #begin(query: MatchQuery): Call {
    const startedAtMs = performance.now();
    const checked = checkQuery(query, this.#parts.settings);
    if (this.#closing) throw closedError();
    const deadline = new Deadline(checked.timeoutMs, query.signal);
    return { query: checked, deadline, startedAtMs, lunaRequestId: query.lunaRequestId };
  }

  async #untilOver(call: Call): Promise<MatchAnswer[]> {
    const { deadline } = call;
    const matching = this.#match(call);
    this.#calls.set(deadline, matching);
    try {
      return await deadline.race(matching);
    } catch (thrown) {
      throw deadline.explain(thrown);
    } finally {
      deadline.end();
      this.#calls.delete(deadline);
    }
  }

  async #match(call: Call): Promise<MatchAnswer[]> {
    if (call.deadline.reason) throw call.deadline.reason;
    const vectors = await this.#vectorsOf(call);
    this.#checkServedFor(call.query.label);
    const [first, second] = this.#choice.pathsOf(call.query.label);
    call.firstPath = first;
    if (!second) return Promise.all(this.#start(first, call, vectors, true));
    return this.#matchByTwo(call, vectors, first, second);
  }

  #matchByTwo(
    call: Call,
    vectors: readonly Float32Array[],
    first: PathName,
    second: PathName,
  ): Promise<MatchAnswer[]> {
    let failure: LimError | undefined;
    let bothRun = false;
    call.deadline.expectTwoPaths();
    return answerByTwo(
      this.#start(first, call, vectors, false),
      {
        patienceMs: this.#choice.patienceMs(first, call.query.timeoutMs),
        mayRescue: (error) => {
          failure ??= error;
          return this.#choice.mayRescue(first, error);
        },
        start: (places) => {
          this.#choice.noteFailure(first, failure);
          bothRun = true;
          return this.#start(
            second,
            call,
            places.map((place) => vectors[place] as Float32Array),
            true,
          );
        },
      },
      (one, other) => (first === "index" ? tellBoth(one, other) : tellBoth(other, one)),
    ).finally(() => {
      if (bothRun) call.deadline.cancelRest();
    });
  }

  #start(
    path: PathName,
    call: Call,
    vectors: readonly Float32Array[],
    isLastResort: boolean,
  ): Promise<MatchAnswer>[] {
    return path === "exact"
      ? this.#exact.start(call, vectors)
      : this.#index.start(call, vectors, isLastResort);
  }

  /** Throws descriptor_version_mismatch where the label is served, but for other descriptors only. */
  #checkServedFor(label: string): void {
    const { dim, descriptorVersion } = this.#parts.settings;
    const served = this.#parts.watcher.served(label);
    const [first] = served;
    if (
      !first ||
      served.some(({ value }) => value.descriptor_version === descriptorVersion && value.dim === dim)
    )
      return;
    throw new LimError(
      "descriptor_version_mismatch",
      `the label is served for version ${first.value.descriptor_version} of ${first.value.dim} dimensions, not for version ${descriptorVersion} of ${dim}`,
    );
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
}

function closedError(): LimError {
  return new LimError("aborted", "the search plugin was closed");
}
