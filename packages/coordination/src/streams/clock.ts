import { pause } from "../failures.ts";
import type { Log } from "../log.ts";
import type { RedisConnection } from "../port.ts";

const measureEveryMs = 5_000;
const retryMs = 200;
/** A measurement that took longer (a blocked event loop, a slow network) is only used when nothing better is at hand. */
const goodMeasurementMs = 50;
const staleAfterMs = 30_000;

/**
 * Redis' clock, by which match requests expire, read off this process' monotonic clock: neither a jump of the local
 * clock nor its offset reaches a deadline.
 */
export class RedisClock {
  readonly #redis: RedisConnection;
  readonly #log: Log | undefined;
  #offsetMs: number | undefined;
  #measuredAtMs = Number.NEGATIVE_INFINITY;

  constructor(redis: RedisConnection, log: Log | undefined) {
    this.#redis = redis;
    this.#log = log;
  }

  /** Measures until it has succeeded once, or the signal fires. */
  async ready(signal: AbortSignal): Promise<void> {
    while (this.#offsetMs === undefined && !signal.aborted) {
      if (!(await this.#measure(signal))) await pause(retryMs, signal);
    }
  }

  /** Keeps measuring until the signal fires. */
  async follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(measureEveryMs, signal);
      if (!signal.aborted) await this.#measure(signal);
    }
  }

  /** Milliseconds since 1970 by Redis' clock. Only after `ready`. */
  nowMs(): number {
    return performance.now() + (this.#offsetMs ?? 0);
  }

  async #measure(signal: AbortSignal): Promise<boolean> {
    const startedAtMs = performance.now();
    try {
      const { redisMs } = await this.#redis.time({ signal });
      const now = performance.now();
      if (now - startedAtMs <= goodMeasurementMs || now - this.#measuredAtMs > staleAfterMs) {
        this.#offsetMs = redisMs - now;
        this.#measuredAtMs = now;
      }
      return true;
    } catch (thrown) {
      if (!signal.aborted)
        this.#log?.debug(
          { reason: String(thrown) },
          "Redis' clock could not be read, keeping the last offset",
        );
      return false;
    }
  }
}
