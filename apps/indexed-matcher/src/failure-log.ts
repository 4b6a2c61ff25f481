import type { MatchReply } from "@lim/contracts";
import type { Log, MatchEntry } from "@lim/coordination";

/** Requests that one line names. */
const maxNamed = 10;
/** Who sends nonsense by the thousand must not fill the log: the metrics count them all. */
const maxLinesPerS = 5;

/** Tells which requests were answered with an error, under the ids that their callers know. */
export class FailureLog {
  readonly #log: Log;
  #secondStartedMs = Number.NEGATIVE_INFINITY;
  #lines = 0;
  #untold = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  /** `failed`: of one label, at least one. */
  note(failed: readonly { entry: MatchEntry; reply: MatchReply }[]): void {
    const nowMs = performance.now();
    if (nowMs - this.#secondStartedMs >= 1_000) {
      this.#secondStartedMs = nowMs;
      this.#lines = 0;
    }
    if (++this.#lines > maxLinesPerS) {
      this.#untold += failed.length;
      return;
    }
    this.#log.info(
      {
        label: failed[0]?.entry.label,
        failed: failed.length,
        requests: failed
          .slice(0, maxNamed)
          .map(({ entry, reply }) => ({ ...callerIdsOf(entry), error_code: reply.error?.error_code })),
        ...(this.#untold > 0 ? { untold_before: this.#untold } : {}),
      },
      "matches were answered with an error",
    );
    this.#untold = 0;
  }
}

/** Under which a request is known to its caller and in its caller's traces; what it did not name is left out. */
export function callerIdsOf({ rid, request }: MatchEntry): {
  rid?: string;
  luna_request_id?: string;
  traceparent?: string;
} {
  const { luna_request_id, traceparent } = "fields" in request ? request.fields : {};
  return {
    ...(rid === undefined ? {} : { rid }),
    ...(luna_request_id === undefined ? {} : { luna_request_id }),
    ...(traceparent === undefined ? {} : { traceparent }),
  };
}
