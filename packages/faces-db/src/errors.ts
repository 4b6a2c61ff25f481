import { isLimError, LimError } from "@lim/contracts";

/** What node-postgres and node's sockets add to an error. */
interface PostgresFault {
  code?: string;
  detail?: string;
  constraint?: string;
  message: string;
}

const unavailableCodes = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ETIMEDOUT",
  "EPIPE",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "EACCES",
  "57P01",
  "57P02",
  "57P03",
  "57P05",
  "3D000",
  "28000",
  "28P01",
]);
/** 08 connection exceptions, 53 insufficient resources, 58 errors of the system Postgres runs on. */
const unavailableClasses = new Set(["08", "53", "58"]);
const unavailableTexts =
  /connection terminated|connection ended|timeout exceeded when trying to connect|client has encountered a connection error|not queryable|client was closed|SSL|SASL|pool after calling end/i;

function faultOf(thrown: unknown): PostgresFault {
  if (!(thrown instanceof Error)) return { message: String(thrown) };
  const { code, detail, constraint } = thrown as Error & PostgresFault;
  // A refused connection to a name with several addresses: the text is in the inner errors.
  const inner = thrown instanceof AggregateError ? thrown.errors.map((e) => String(e?.message ?? e)) : [];
  return {
    message: thrown.message || inner.join("; "),
    ...(typeof code === "string" ? { code } : {}),
    ...(typeof detail === "string" ? { detail } : {}),
    ...(typeof constraint === "string" ? { constraint } : {}),
  };
}

/** Postgres asks to repeat the transaction: serialization failure or deadlock. */
export function isRetryable(thrown: unknown): boolean {
  const { code } = faultOf(thrown);
  return code === "40001" || code === "40P01";
}

export function violatedConstraint(thrown: unknown): string | undefined {
  const { code, constraint } = faultOf(thrown);
  return code === "23505" || code === "23503" ? constraint : undefined;
}

/** Errors of this room's work as LimError. `secrets` are cut out of every text, causes included. */
export function toLimError(thrown: unknown, secrets: readonly string[]): LimError {
  if (isLimError(thrown)) return thrown;
  const fault = faultOf(thrown);
  const redact = (text: string) => secrets.reduce((t, secret) => t.replaceAll(secret, "***"), text);
  const text = redact(fault.detail ? `${fault.message} (${fault.detail})` : fault.message);
  // The original error may hold the connection string, so only its text goes on as the cause.
  const cause = Object.assign(new Error(redact(fault.message)), fault.code ? { code: fault.code } : {});
  const error = (name: ConstructorParameters<typeof LimError>[0], detail: string) =>
    new LimError(name, detail, { cause });
  const code = fault.code ?? "";
  if (thrown instanceof Error && thrown.name === "AbortError") return error("aborted", text);
  if (code === "40001" || code === "40P01") return error("retry_transaction", text);
  if (unavailableCodes.has(code) || unavailableClasses.has(code.slice(0, 2)) || unavailableTexts.test(text))
    return error("postgres_unavailable", code ? `${text} [${code}]` : text);
  if (code === "42P01" || code === "3F000")
    return error("postgres_unavailable", `${text}: the schema is missing or old, apply the migrations`);
  if (code === "23503" && fault.constraint?.endsWith("_list_id_fkey")) return error("list_not_found", text);
  if (code.startsWith("22") || code.startsWith("23")) return error("bad_input", text);
  return error("internal", code ? `${text} [${code}]` : text);
}
