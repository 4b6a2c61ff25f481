/**
 * The closed set of errors that LIM's services raise, with stable codes and their HTTP status.
 * Codes 260xx are common, 261xx come from building an index, 263xx from matching.
 */
export const errorTable = {
  internal: { code: 26000, httpStatus: 500, desc: "Internal error" },
  bad_input: { code: 26001, httpStatus: 400, desc: "Input failed validation" },
  not_found: { code: 26002, httpStatus: 404, desc: "Object not found" },
  payload_too_large: { code: 26003, httpStatus: 413, desc: "Payload too large" },
  unsupported_media_type: { code: 26004, httpStatus: 415, desc: "Unsupported media type" },
  timeout: { code: 26005, httpStatus: 504, desc: "Deadline passed" },
  aborted: { code: 26006, httpStatus: 499, desc: "Cancelled by the caller" },
  overloaded: { code: 26007, httpStatus: 503, desc: "A named limit was reached, try again later" },
  bad_settings: { code: 26008, httpStatus: 500, desc: "Settings failed validation" },
  unauthorized: { code: 26009, httpStatus: 401, desc: "Authorization is missing or wrong" },
  postgres_unavailable: { code: 26020, httpStatus: 503, desc: "Postgres is not available" },
  redis_unavailable: { code: 26021, httpStatus: 503, desc: "Redis is not available" },
  storage_unavailable: { code: 26022, httpStatus: 503, desc: "Index storage is not available" },
  retry_transaction: { code: 26023, httpStatus: 503, desc: "Transaction conflict, retry it" },
  fenced: { code: 26030, httpStatus: 409, desc: "A stale master, attempt or lock holder was refused" },
  task_conflict: { code: 26031, httpStatus: 409, desc: "The label has an open task already" },
  idempotency_conflict: { code: 26032, httpStatus: 422, desc: "Idempotency key stands for another request" },
  indexer_busy: { code: 26101, httpStatus: 409, desc: "Indexer is busy with another build" },
  list_not_found: { code: 26102, httpStatus: 404, desc: "List not found" },
  disk_full: { code: 26103, httpStatus: 507, desc: "No space left for the index" },
  build_crashed: { code: 26104, httpStatus: 500, desc: "Build process was killed or crashed" },
  empty_list: { code: 26105, httpStatus: 422, desc: "List has no descriptor to index" },
  build_cancelled: { code: 26106, httpStatus: 409, desc: "Build was cancelled" },
  verification_failed: { code: 26107, httpStatus: 500, desc: "Built index failed its verification" },
  index_id_conflict: { code: 26108, httpStatus: 409, desc: "Index id exists with foreign content" },
  out_of_memory: { code: 26109, httpStatus: 500, desc: "Build ran out of memory" },
  indexer_lost: { code: 26110, httpStatus: 500, desc: "Indexer vanished or lost the build" },
  attempts_exhausted: { code: 26111, httpStatus: 500, desc: "Build failed in every allowed attempt" },
  base_index_unusable: { code: 26112, httpStatus: 409, desc: "Index to update from is not usable" },
  not_served: { code: 26301, httpStatus: 503, desc: "No matcher serves the label" },
  request_expired: { code: 26302, httpStatus: 504, desc: "Match request expired" },
  dead_lettered: { code: 26303, httpStatus: 500, desc: "Match request was delivered too often" },
  index_behind: { code: 26304, httpStatus: 409, desc: "Index is behind the requested revision" },
  descriptor_version_mismatch: {
    code: 26305,
    httpStatus: 400,
    desc: "Descriptor version differs from the index's",
  },
  bad_match_request: { code: 26306, httpStatus: 400, desc: "Match request failed validation" },
  memory_limit: { code: 26307, httpStatus: 507, desc: "Loading would pass the memory limit" },
  index_refused: { code: 26308, httpStatus: 500, desc: "Index is corrupt, truncated or foreign" },
  engine_failed: { code: 26309, httpStatus: 500, desc: "Vector engine failed" },
} as const satisfies Record<string, { code: number; httpStatus: number; desc: string }>;

export type ErrorName = keyof typeof errorTable;

/** Wire form of an error: HTTP bodies, stream replies and task records carry it. `link` is omitted outside HTTP. */
export interface ErrorBody {
  error_code: number;
  desc: string;
  detail: string;
  link?: string;
}

/** The one error class of LIM. `detail` says the cause and, where there is one, the remedy; it never holds secrets. */
export class LimError extends Error {
  readonly errorName: ErrorName;
  readonly code: number;
  readonly httpStatus: number;
  readonly detail: string;

  constructor(errorName: ErrorName, detail: string, options?: { cause?: unknown }) {
    const row = errorTable[errorName];
    super(`${row.desc}: ${detail}`, options);
    this.name = "LimError";
    this.errorName = errorName;
    this.code = row.code;
    this.httpStatus = row.httpStatus;
    this.detail = detail;
  }

  toBody(): ErrorBody {
    return { error_code: this.code, desc: errorTable[this.errorName].desc, detail: this.detail };
  }

  /** The error of the wire form; an unknown code becomes `internal`, its text kept. */
  static fromBody(body: { error_code: number; desc: string; detail: string }): LimError {
    const name = errorNameOfCode(body.error_code);
    return new LimError(
      name ?? "internal",
      name ? body.detail : `${body.error_code} ${body.desc}: ${body.detail}`,
    );
  }

  /** Any thrown value as a LimError: itself, an abort as `aborted`, all else as `fallback`. */
  static from(thrown: unknown, fallback: ErrorName = "internal"): LimError {
    if (thrown instanceof LimError) return thrown;
    if (thrown instanceof Error && thrown.name === "AbortError")
      return new LimError("aborted", thrown.message, { cause: thrown });
    const detail = thrown instanceof Error ? thrown.message : String(thrown);
    return new LimError(fallback, detail, { cause: thrown });
  }
}

export function errorNameOfCode(code: number): ErrorName | undefined {
  for (const [name, row] of Object.entries(errorTable)) if (row.code === code) return name as ErrorName;
  return undefined;
}

export function isLimError(thrown: unknown, name?: ErrorName): thrown is LimError {
  return thrown instanceof LimError && (name === undefined || thrown.errorName === name);
}
