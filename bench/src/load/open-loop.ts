import { setImmediate, setTimeout } from "node:timers/promises";
import { createRandom } from "../manager/random.ts";
import { type Latencies, latenciesOf, percentile } from "./latencies.ts";

export interface OpenLoopOptions {
  /** Requests a second. They fall due at random times (Poisson), the same ones for the same seed. */
  perS: number;
  /** For so long requests fall due; all of them are waited for. */
  durationMs: number;
  seed: number;
  /** Past so many unanswered requests those that fall due are not sent, and counted: the service is overrun. */
  maxInFlight: number;
  /** Sends request n. False, or a rejection, is a failure. */
  ask(n: number): Promise<boolean>;
  signal?: AbortSignal;
}

export interface OpenLoopFigures {
  offeredPerS: number;
  answeredPerS: number;
  failed: number;
  notSent: number;
  /**
   * From when each request was due to its answer, whenever it could be sent: a service (or a generator) that stalls
   * does not hide its stall by being asked less meanwhile. Failures have no latency.
   */
  latency: Latencies;
  /** How much later than due requests were sent: what of the latencies is the generator's own. */
  sentLateP99Ms: number;
}

/** Asks at a rate that does not depend on the answers. */
export async function openLoop(options: OpenLoopOptions): Promise<OpenLoopFigures> {
  const { perS, durationMs, maxInFlight, ask, signal } = options;
  const random = createRandom(options.seed);
  const latenciesMs: number[] = [];
  const sentLateMs: number[] = [];
  const inFlight = new Set<Promise<void>>();
  let failed = 0;
  let notSent = 0;
  let sent = 0;
  const send = (dueMs: number) => {
    if (inFlight.size >= maxInFlight) {
      notSent++;
      return;
    }
    sentLateMs.push(performance.now() - dueMs);
    const asking = ask(sent++)
      .then((isGood) => {
        if (isGood) latenciesMs.push(performance.now() - dueMs);
        else failed++;
      })
      .catch(() => {
        failed++;
      })
      .finally(() => inFlight.delete(asking));
    inFlight.add(asking);
  };
  const startedMs = performance.now();
  const next = (fromMs: number) => fromMs - (Math.log(1 - random()) * 1_000) / perS;
  for (let dueMs = next(startedMs); dueMs < startedMs + durationMs && !signal?.aborted; ) {
    const waitMs = dueMs - performance.now();
    // Also where requests are due already: their answers must be heard meanwhile.
    await (waitMs > 0 ? setTimeout(waitMs) : setImmediate());
    for (
      const nowMs = performance.now();
      dueMs <= nowMs && dueMs < startedMs + durationMs;
      dueMs = next(dueMs)
    )
      send(dueMs);
  }
  await Promise.all(inFlight);
  const elapsedS = (performance.now() - startedMs) / 1_000;
  return {
    offeredPerS: perS,
    answeredPerS: latenciesMs.length / elapsedS,
    failed,
    notSent,
    latency: latenciesOf(latenciesMs),
    sentLateP99Ms: percentile(
      sentLateMs.toSorted((a, b) => a - b),
      0.99,
    ),
  };
}
