import { LimError } from "@lim/contracts";

/** Results in input order, at most `parallel` running at a time. The first rejection rejects and starts no more. */
export async function mapBounded<In, Out>(
  inputs: readonly In[],
  parallel: number,
  work: (input: In) => Promise<Out>,
): Promise<Out[]> {
  const results = new Array<Out>(inputs.length);
  const remaining = inputs.entries();
  let failed = false;
  const worker = async () => {
    for (const [i, input] of remaining) {
      if (failed) return;
      try {
        results[i] = await work(input);
      } catch (thrown) {
        failed = true;
        throw thrown;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, inputs.length) }, worker));
  return results;
}

/** Resolves after `ms`, or at once when the signal fires. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}

/**
 * Runs `work` at most once at a time: who calls while it runs gets the running one's result. It is aborted when the
 * last of its callers has given up; a caller whose own signal fires is told `aborted`, and the others wait on.
 */
export function singleFlight<T>(
  work: (signal: AbortSignal) => Promise<T>,
): (signal: AbortSignal) => Promise<T> {
  let running: { result: Promise<T>; callers: number; controller: AbortController } | undefined;
  const start = () => {
    const controller = new AbortController();
    const flight = { result: work(controller.signal), callers: 0, controller };
    const end = () => {
      if (running === flight) running = undefined;
    };
    flight.result.then(end, end);
    return flight;
  };
  return async (signal) => {
    if (signal.aborted) throw new LimError("aborted", "cancelled by the caller");
    running ??= start();
    const flight = running;
    flight.callers++;
    let giveUp = () => {};
    const gaveUp = new Promise<never>((_, reject) => {
      giveUp = () => reject(new LimError("aborted", "cancelled by the caller"));
      signal.addEventListener("abort", giveUp, { once: true });
    });
    try {
      return await Promise.race([flight.result, gaveUp]);
    } finally {
      signal.removeEventListener("abort", giveUp);
      flight.callers--;
      if (flight.callers === 0) {
        // Whoever comes next must not get the result of a run that was told to stop.
        if (running === flight) running = undefined;
        flight.controller.abort();
      }
    }
  };
}
