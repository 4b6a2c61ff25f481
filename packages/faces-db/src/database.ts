import { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { isLimError, LimError } from "@lim/contracts";
import pg from "pg";
import { isRetryable, toLimError } from "./errors.ts";
import { facesDbLimits } from "./limits.ts";
import type { Cancellable } from "./port.ts";
import { ReadSocket } from "./read-socket.ts";

export type Session = Pick<pg.PoolClient, "query">;

/** A connection taken from the pool; exactly one of the two ends it. */
export interface Lease {
  client: pg.PoolClient;
  giveBack(): void;
  /** Closes the connection: its transaction ends with it. */
  destroy(): void;
}

/** The pool, transactions with bounded retries, cancellation, and errors as LimError. */
export class Database {
  readonly #pool: pg.Pool;
  readonly #secrets: readonly string[];
  readonly #openWork = new Set<() => void>();

  constructor(options: { connectionString: string; maxConnections?: number; applicationName?: string }) {
    this.#secrets = secretsOf(options.connectionString);
    try {
      // Parses the connection string now, not at the first query.
      new pg.Client({ connectionString: options.connectionString });
    } catch (cause) {
      throw new LimError("bad_settings", `Postgres connection string: ${this.error(cause).detail}`);
    }
    this.#pool = new pg.Pool({
      connectionString: options.connectionString,
      max: options.maxConnections ?? facesDbLimits.maxConnections,
      application_name: options.applicationName ?? "lim",
      connectionTimeoutMillis: facesDbLimits.connectTimeoutMs,
      keepAlive: true,
      stream: socketOf,
    });
    // An idle connection that Postgres closes is replaced at the next use; without a listener it would end the process.
    this.#pool.on("error", () => {});
    // Nor may one end it that Postgres closes in the moment it is handed out, when the pool listens no more and its user
    // does not yet; whoever uses it is told by the query.
    this.#pool.on("connect", (client) => client.on("error", () => {}));
  }

  error(thrown: unknown, signal?: AbortSignal): LimError {
    if (signal?.aborted && !isLimError(thrown)) return abortedError(signal);
    return toLimError(thrown, this.#secrets);
  }

  /** Takes a connection. While it is out, an abort of `signal` destroys it, which ends whatever it is doing. */
  async lease(signal?: AbortSignal): Promise<Lease> {
    throwIfAborted(signal);
    let client: pg.PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (cause) {
      throw this.error(cause, signal);
    }
    let out = true;
    const end = (destroy: boolean) => {
      if (!out) return;
      out = false;
      signal?.removeEventListener("abort", abort);
      this.#openWork.delete(abort);
      client.release(destroy);
    };
    const abort = () => {
      const { processID } = client as { processID?: number };
      end(true);
      // The server notices a closed socket only when it next writes; a writer that waits for a lock would go on.
      if (processID !== undefined && !this.#pool.ending)
        this.#pool.query("SELECT pg_terminate_backend($1)", [processID]).catch(() => {});
    };
    this.#openWork.add(abort);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) {
      end(false);
      throw abortedError(signal);
    }
    return { client, giveBack: () => end(false), destroy: () => end(true) };
  }

  /** Runs `work` on one connection; after an error that is not the statement's own, the connection is not used again. */
  async run<T>(signal: AbortSignal | undefined, work: (session: Session) => Promise<T>): Promise<T> {
    const lease = await this.lease(signal);
    try {
      const result = await work(lease.client);
      lease.giveBack();
      return result;
    } catch (thrown) {
      lease.destroy();
      throw this.error(thrown, signal);
    }
  }

  /** One transaction; repeated where Postgres asks for it, or `again` says so, then `retry_transaction`. */
  async transaction<T>(
    options: Cancellable & { begin?: string; again?: (thrown: unknown) => boolean },
    work: (session: Session) => Promise<T>,
  ): Promise<T> {
    return await this.#repeat(options, async (session) => {
      await session.query(options.begin ?? "BEGIN ISOLATION LEVEL READ COMMITTED");
      const result = await work(session);
      await session.query("COMMIT");
      return result;
    });
  }

  /** Statements that commit by themselves, repeated like a transaction. */
  async statement<T>(options: Cancellable, work: (session: Session) => Promise<T>): Promise<T> {
    return await this.#repeat(options, work);
  }

  async #repeat<T>(
    options: Cancellable & { again?: (thrown: unknown) => boolean },
    work: (session: Session) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const lease = await this.lease(options.signal);
      try {
        const result = await work(lease.client);
        lease.giveBack();
        return result;
      } catch (thrown) {
        await rollBack(lease, thrown);
        const repeatable = isRetryable(thrown) || options.again?.(thrown) === true;
        if (!repeatable || options.signal?.aborted) throw this.error(thrown, options.signal);
        if (attempt >= facesDbLimits.maxTransactionAttempts)
          throw new LimError("retry_transaction", `gave up after ${attempt} tries`, {
            cause: this.error(thrown),
          });
      }
      const pauseMs = facesDbLimits.retryBaseMs * 2 ** (attempt - 1) * (0.5 + Math.random());
      try {
        await sleep(pauseMs, undefined, options.signal ? { signal: options.signal } : {});
      } catch (cause) {
        throw this.error(cause, options.signal);
      }
    }
  }

  /** Ends what is still running, then the pool. */
  async close(): Promise<void> {
    if (this.#pool.ending) return;
    const ended = this.#pool.end();
    for (const abort of [...this.#openWork]) abort();
    await ended;
  }
}

/** TLS reads the socket itself. */
function socketOf(config?: { ssl?: unknown }): Socket {
  return config?.ssl ? new Socket() : new ReadSocket();
}

/** Keeps the connection where the server still speaks: an error of a statement leaves it sound after ROLLBACK. */
async function rollBack(lease: Lease, thrown: unknown): Promise<void> {
  const severity = (thrown as { severity?: unknown } | null)?.severity;
  if (!isLimError(thrown) && severity !== "ERROR") return lease.destroy();
  try {
    await lease.client.query("ROLLBACK");
    lease.giveBack();
  } catch {
    lease.destroy();
  }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(signal);
}

function abortedError(signal: AbortSignal): LimError {
  const { reason } = signal;
  if (isLimError(reason)) return reason;
  return new LimError("aborted", reason instanceof Error ? reason.message : "cancelled", { cause: reason });
}

/** The password of a connection string as written and decoded. */
export function secretsOf(connectionString: string): string[] {
  const written = [
    /^[^:]+:\/\/[^:@/]*:(.*)@/.exec(connectionString)?.[1],
    /[?&]password=([^&]*)/.exec(connectionString)?.[1],
  ].filter((text) => text !== undefined && text !== "");
  const secrets = new Set<string>();
  for (const text of written) {
    if (text === undefined) continue;
    secrets.add(text);
    try {
      secrets.add(decodeURIComponent(text));
    } catch {
      // Not percent-encoded: the text as written is all there is.
    }
  }
  return [...secrets].sort((a, b) => b.length - a.length);
}
