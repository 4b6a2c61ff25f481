import { type Latencies, latenciesOf } from "./latencies.ts";

export interface ClosedLoopFigures {
  callers: number;
  answeredPerS: number;
  failed: number;
  latency: Latencies;
}

/** `callers` with one request each at a time: with enough of them the rate at which the service is saturated. */
export async function closedLoop(options: {
  callers: number;
  durationMs: number;
  /** Sends request n. False, or a rejection, is a failure. */
  ask(n: number): Promise<boolean>;
}): Promise<ClosedLoopFigures> {
  const { callers, durationMs, ask } = options;
  const latenciesMs: number[] = [];
  let failed = 0;
  let asked = 0;
  const startedMs = performance.now();
  const call = async () => {
    for (let atMs = startedMs; atMs < startedMs + durationMs; atMs = performance.now()) {
      const isGood = await ask(asked++).catch(() => false);
      if (isGood) latenciesMs.push(performance.now() - atMs);
      else failed++;
    }
  };
  await Promise.all(Array.from({ length: callers }, call));
  const elapsedS = (performance.now() - startedMs) / 1_000;
  return { callers, answeredPerS: latenciesMs.length / elapsedS, failed, latency: latenciesOf(latenciesMs) };
}
