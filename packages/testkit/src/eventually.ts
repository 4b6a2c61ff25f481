import { setTimeout as sleep } from "node:timers/promises";

/**
 * Awaits a condition by polling: resolves with the probe's first value that is not undefined. A probe that throws is
 * tried again; a boolean is a value like any other. Rejects with `what` and the last reason after timeoutMs
 * (default 30 s, which a machine that does much else keeps; polled every 25 ms).
 */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options: { timeoutMs?: number; intervalMs?: number } = {},
): Promise<T> {
  const { timeoutMs = 30_000, intervalMs = 25 } = options;
  const deadline = performance.now() + timeoutMs;
  let reason: unknown = new Error("the condition never held");
  for (;;) {
    const left = deadline - performance.now();
    try {
      const value = await within(Promise.resolve(probe()), Math.max(left, intervalMs));
      if (value !== undefined) return value;
      reason = new Error("the condition never held");
    } catch (error) {
      reason = error;
    }
    if (performance.now() >= deadline) {
      const text = reason instanceof Error ? reason.message : String(reason);
      throw new Error(`not within ${timeoutMs} ms: ${what} (${text})`, { cause: reason });
    }
    await sleep(intervalMs);
  }
}

/** A probe that hangs must not outlive the deadline. */
async function within<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the probe did not return")), limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
