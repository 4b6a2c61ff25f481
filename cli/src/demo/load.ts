import type { MatchAnswer, SearchPlugin } from "@lim/search-plugin";
import type { Probe } from "./source.ts";

export interface LoadResult {
  sent: number;
  failed: number;
  /** First few failures' texts. */
  failures: string[];
  latenciesMs: number[];
  elapsedMs: number;
}

export interface Load {
  /** Lets running requests end. */
  stop(): Promise<LoadResult>;
}

const maxKeptFailures = 5;

/** Closed loop: `callers` at once, each sends one probe, awaits its answer, sends the next. */
export function startLoad(options: {
  plugin: SearchPlugin;
  label: string;
  probes: readonly Probe[];
  callers: number;
  limit?: number;
  timeoutMs?: number;
  onAnswer?: (answer: MatchAnswer, probe: Probe) => void;
}): Load {
  const { plugin, label, probes, onAnswer } = options;
  const result: LoadResult = { sent: 0, failed: 0, failures: [], latenciesMs: [], elapsedMs: 0 };
  const startedMs = performance.now();
  let stopping = false;
  let next = 0;
  const caller = async () => {
    while (!stopping) {
      const probe = probes[next++ % probes.length];
      if (probe === undefined) return;
      const sentMs = performance.now();
      result.sent++;
      try {
        const [answer] = await plugin.match({
          label,
          references: [{ descriptor: probe.vector }],
          limit: options.limit ?? 10,
          timeoutMs: options.timeoutMs ?? 5_000,
        });
        result.latenciesMs.push(performance.now() - sentMs);
        if (answer) onAnswer?.(answer, probe);
      } catch (error) {
        result.failed++;
        if (result.failures.length < maxKeptFailures)
          result.failures.push(error instanceof Error ? error.message : String(error));
      }
    }
  };
  const callers = Array.from({ length: options.callers }, caller);
  return {
    async stop() {
      stopping = true;
      await Promise.all(callers);
      result.elapsedMs = performance.now() - startedMs;
      return result;
    },
  };
}

/** The q-quantile by nearest rank; NaN of nothing. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}

export function perSecond(result: LoadResult): number {
  return (result.sent - result.failed) / (result.elapsedMs / 1000);
}
