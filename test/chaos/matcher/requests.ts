import { type ErrorName, LimError, type Match } from "@lim/contracts";
import { type Findings, textOf } from "../findings.ts";
import type { ServedWatch } from "./served.ts";
import type { Troubles } from "./trouble.ts";
import type { ListTruth } from "./truth.ts";

/**
 * A request is over this long after its deadline at the latest: an answer or an error that its caller has. Of raw
 * callers, who have no client library with a timer of its own, the matchers' word is awaited: entries of a matcher
 * that died are claimed once idle for 2.5 s.
 */
export const marginMs = { plugin: 3_000, raw: 8_000 } as const;

/** Replies that are in the socket when a raw caller's time is over still count. */
export const rawSlackMs = 1_000;

/** What an innocent, well formed request may be told, and what must have happened for it. */
const allowed: Partial<
  Record<ErrorName, readonly ("redis" | "postgres" | "storage" | "matcher")[] | "always">
> = {
  // How long a busy machine takes is not judged, only that the caller is told in time.
  request_expired: "always",
  redis_unavailable: ["redis"],
  postgres_unavailable: ["postgres"],
  not_served: ["redis", "storage", "matcher"],
};

export interface Asked {
  truth: ListTruth;
  path: string;
  probe: { faceId: string; vector: Float32Array } | undefined;
  minRevision: number | undefined;
  timeoutMs: number;
  /** By performance.now(). */
  sentAtMs: number;
  /** Lowest revision that an answer may have. */
  floor: number;
  /** Whether its time and the margin are over; told by a timer, which a process that stood still does not run first. */
  isLate(): boolean;
}

export interface Outcome {
  revision: number | null;
  indexId: string | null;
  matches: readonly Match[];
  error: LimError | undefined;
}

/** Judges what callers get. */
export class RequestJudge {
  readonly #findings: Pick<Findings, "violation" | "count">;
  readonly #watch: Pick<ServedWatch, "floor" | "coveredSince">;
  readonly #troubles: Troubles;
  /** Ids of indexes that were published damaged: no answer may come from them (I2). */
  readonly damaged = new Set<string>();

  constructor(options: {
    findings: Pick<Findings, "violation" | "count">;
    watch: Pick<ServedWatch, "floor" | "coveredSince">;
    troubles: Troubles;
  }) {
    this.#findings = options.findings;
    this.#watch = options.watch;
    this.#troubles = options.troubles;
  }

  asked(
    truth: ListTruth,
    request: {
      path: string;
      timeoutMs: number;
      probe?: { faceId: string; vector: Float32Array } | undefined;
      minRevision?: number | undefined;
    },
  ): Asked {
    let late = false;
    const margin = request.path === "raw" ? marginMs.raw + rawSlackMs : marginMs.plugin;
    setTimeout(() => {
      late = true;
    }, request.timeoutMs + margin).unref();
    return {
      isLate: () => late,
      truth,
      path: request.path,
      probe: request.probe,
      minRevision: request.minRevision,
      timeoutMs: request.timeoutMs,
      sentAtMs: performance.now(),
      floor: Math.max(this.#watch.floor(truth.listId), request.minRevision ?? 0),
    };
  }

  /** The one outcome that the caller accepts. */
  settled(asked: Asked, outcome: Outcome): void {
    const { path, timeoutMs, sentAtMs } = asked;
    if (asked.isLate())
      this.#findings.violation(
        `I6: a ${path} request with a timeout of ${timeoutMs} ms was over after ${Math.round(performance.now() - sentAtMs)} ms`,
      );
    if (outcome.error) this.#judgeError(asked, outcome.error);
    else this.judgeAnswer(asked, outcome);
    this.#findings.count(`answers, ${path}`, outcome.error?.errorName ?? "ok");
  }

  /** An answer, accepted or not: what it says must be right in any case. */
  judgeAnswer(asked: Asked, { revision, indexId, matches }: Outcome): void {
    const { truth, probe, floor, path } = asked;
    if (revision === null) {
      this.#findings.violation(`a ${path} answer of list ${truth.listId} has no revision`);
      return;
    }
    if (indexId !== null && this.damaged.has(indexId))
      this.#findings.violation(`I2: an answer of list ${truth.listId} is from the damaged index ${indexId}`);
    for (const fault of truth.judge({ revision, indexId, matches, probe, floor }))
      this.#findings.violation(`${fault}, ${path} request, index ${indexId}`);
    if (probe) this.#findings.count("judged", "faces asked for by their own vector");
    this.#findings.count("judged", "answers");
  }

  /** A raw request without any reply although its deadline and the margin are over. */
  unanswered(asked: Asked): void {
    const { truth, sentAtMs, timeoutMs } = asked;
    const covered =
      this.#watch.coveredSince(truth.listId, sentAtMs) && !this.#troubles.any(["redis"], sentAtMs);
    if (covered)
      this.#findings.violation(
        `I6: a raw request to list ${truth.listId} with a timeout of ${timeoutMs} ms got no reply within ` +
          `${Math.round(performance.now() - sentAtMs)} ms, though Redis and a matcher of the list were there all the time`,
      );
    this.#findings.count("answers, raw", covered ? "none" : "none, as Redis or all matchers were away");
  }

  #judgeError({ truth, path, minRevision, sentAtMs }: Asked, error: LimError): void {
    const { errorName } = error;
    if (errorName === "index_behind" && minRevision !== undefined) return;
    const causes = allowed[errorName];
    if (causes === "always") return;
    if (causes === undefined || !this.#troubles.any(causes, sentAtMs))
      this.#findings.violation(
        `a ${path} request to list ${truth.listId} got ${errorName}${causes ? " without a cause" : ""}: ${error.detail}`,
      );
  }
}

export function outcomeOfError(thrown: unknown): Outcome {
  const error = thrown instanceof LimError ? thrown : new LimError("internal", textOf(thrown));
  return { revision: null, indexId: null, matches: [], error };
}
