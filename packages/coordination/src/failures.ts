import { LimError } from "@lim/contracts";
import { ReplyError } from "ioredis";

/** Error replies of a server that may serve again later, by their first word. */
const passingReplies = new Set([
  "LOADING",
  "BUSY",
  "MASTERDOWN",
  "READONLY",
  "CLUSTERDOWN",
  "TRYAGAIN",
  "NOREPLICAS",
  "MISCONF",
  "OOM",
  "UNBLOCKED",
]);
const credentialReplies = new Set(["NOAUTH", "WRONGPASS", "NOPERM"]);

/**
 * Any error of a Redis command as a LimError. ioredis' own error is left behind on purpose: it carries the command's
 * arguments, among them the password of AUTH and whole descriptors.
 */
export function redisFailure(thrown: unknown, what: string): LimError {
  if (thrown instanceof LimError) return thrown;
  if (isCancelled(thrown)) return LimError.from(thrown);
  const message = messageOf(thrown);
  if (thrown instanceof ReplyError) {
    const word = message.split(" ", 1)[0] ?? "";
    if (credentialReplies.has(word))
      return new LimError("bad_settings", `Redis refused the credentials or rights for ${what}: ${message}`);
    if (!passingReplies.has(word)) return new LimError("internal", `Redis refused ${what}: ${message}`);
  }
  return new LimError("redis_unavailable", `${what}: ${message}`);
}

/** By a signal: what ioredis calls an AbortError is a connection that was lost in the middle of a pipeline. */
function isCancelled(thrown: unknown): boolean {
  const isNodes = (thrown as { code?: unknown } | null)?.code === "ABORT_ERR";
  return (
    thrown instanceof Error && thrown.name === "AbortError" && (isNodes || thrown instanceof DOMException)
  );
}

/** The library's own words on a lost connection name an option of its own, which nobody here can set. */
function messageOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return thrown.name === "MaxRetriesPerRequestError" ? "the connection is lost" : thrown.message;
}

/** Runs commands and gives their failures as LimErrors; rejects with `aborted` as soon as the signal fires. */
export async function guarded<T>(
  what: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  try {
    if (signal?.aborted) throw abortedError(signal);
    return await abortable(work(), signal);
  } catch (thrown) {
    throw redisFailure(thrown, what);
  }
}

/** The promise, or `aborted` as soon as the signal fires; what was sent to the server still takes effect there. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  // The loser of the race must not surface as an unhandled rejection.
  promise.catch(() => {});
  if (signal.aborted) throw abortedError(signal);
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(abortedError(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Resolves after `ms`, or at once when the signal fires: for loops that look at the signal themselves. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}

export function abortedError(signal: AbortSignal): LimError {
  const reason = signal.reason;
  return reason instanceof LimError
    ? reason
    : new LimError("aborted", reason instanceof Error ? reason.message : "cancelled by the caller");
}
