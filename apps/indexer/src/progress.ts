import { buildPhases, type Progress } from "@lim/contracts";

type Phase = Progress["phase"];

/** Rates look this far back, so that an estimate follows an engine that slows down as it grows. */
const rateWindowMs = 10_000;
const maxSamples = 64;
const defaultMinIntervalMs = 200;

export interface ProgressMeter {
  /**
   * Tells how far a phase is. Earlier phases and lower counts than those already told are ignored, so that what
   * `emit` hears never goes back. Emits on a new phase, on its completion, and otherwise at most once an interval.
   */
  report(phase: Phase, done: number, total: number): void;
  current(): Progress | undefined;
}

/** Turns raw counts into throttled, monotone progress with rate and ETA. */
export function createProgressMeter(options: {
  emit: (progress: Progress) => void;
  nowMs: () => number;
  minIntervalMs?: number;
}): ProgressMeter {
  const minIntervalMs = options.minIntervalMs ?? defaultMinIntervalMs;
  let current: Progress | undefined;
  let samples: { atMs: number; done: number }[] = [];
  let emittedAtMs = Number.NEGATIVE_INFINITY;

  const rateOf = (nowMs: number, done: number): number | null => {
    while (samples.length > 2 && nowMs - (samples[1]?.atMs ?? nowMs) >= rateWindowMs) samples.shift();
    const oldest = samples[0];
    if (!oldest || nowMs <= oldest.atMs || done <= oldest.done) return null;
    return ((done - oldest.done) * 1000) / (nowMs - oldest.atMs);
  };

  return {
    current: () => current,
    report(phase, rawDone, rawTotal) {
      const nowMs = options.nowMs();
      const total = Math.max(rawTotal, rawDone, 0);
      const entered = current?.phase !== phase;
      if (current && buildPhases.indexOf(phase) < buildPhases.indexOf(current.phase)) return;
      if (current && !entered && rawDone < current.done) return;
      const completed = rawDone === total && (entered || current?.done !== rawDone);
      if (entered) samples = [];
      const rate = rateOf(nowMs, rawDone);
      const last = samples.at(-1);
      if (!last || nowMs - last.atMs >= rateWindowMs / maxSamples)
        samples.push({ atMs: nowMs, done: rawDone });
      current = {
        phase,
        done: rawDone,
        total,
        rate_per_s: rate === null ? null : round(rate),
        eta_s: rate === null ? null : round((total - rawDone) / rate),
      };
      if (!entered && !completed && nowMs - emittedAtMs < minIntervalMs) return;
      emittedAtMs = nowMs;
      options.emit(current);
    },
  };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
