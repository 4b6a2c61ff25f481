import { LimError } from "@lim/contracts";
import type { Log } from "@lim/coordination";
import { pause } from "./concurrency.ts";
import { managerLimits } from "./limits.ts";

/**
 * Repeats `once` until the signal fires, with the pause that it asks for after each. A failure is logged when it
 * begins, when it changes and once a minute, and the routine goes on: what it does is derived anew each time.
 */
export async function repeat(
  name: string,
  once: () => Promise<{ nextAfterMs: number }>,
  options: { firstAfterMs?: number; failurePauseMs: number; log: Log; signal: AbortSignal },
): Promise<void> {
  const { signal, log } = options;
  let logged: { text: string; atMs: number } | undefined;
  if (options.firstAfterMs !== undefined) await pause(options.firstAfterMs, signal);
  while (!signal.aborted) {
    let nextAfterMs = options.failurePauseMs;
    try {
      ({ nextAfterMs } = await once());
      if (logged) log.info({ routine: name }, `${name} works again`);
      logged = undefined;
    } catch (thrown) {
      if (signal.aborted) return;
      const text = LimError.from(thrown).message;
      const nowMs = performance.now();
      if (logged?.text !== text || nowMs - logged.atMs > managerLimits.repeatFailureLogMs) {
        log.error({ routine: name, err: thrown }, `${name} failed, will be tried again`);
        logged = { text, atMs: nowMs };
      }
    }
    await pause(nextAfterMs, signal);
  }
}
