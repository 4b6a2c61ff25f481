import { setTimeout as sleep } from "node:timers/promises";
import type { Service } from "@lim/testkit";
import { residentMiB } from "./processes.ts";

const everyMs = 2_000;
/** What a service takes while it starts says nothing. */
const startedAfterMs = 6_000;
/** Of shorter lives nothing is told. */
const leastLifeMs = 20_000;

/** Resident memory of one service process that lived for a while. */
export interface MemoryOfService {
  name: string;
  seconds: number;
  first_mib: number;
  last_mib: number;
  max_mib: number;
}

export function createMemoryWatch(services: () => readonly Service[]): {
  run(signal: AbortSignal): Promise<void>;
  figures(): MemoryOfService[];
} {
  const seen = new Map<Service, { sinceMs: number; lastMs: number; values: number[] }>();
  return {
    async run(signal) {
      while (!signal.aborted) {
        const nowMs = performance.now();
        for (const service of services()) {
          const entry = seen.get(service) ?? { sinceMs: nowMs, lastMs: nowMs, values: [] };
          seen.set(service, entry);
          entry.lastMs = nowMs;
          if (nowMs - entry.sinceMs < startedAfterMs) continue;
          const value = await residentMiB(service.process.pid);
          if (value !== undefined) entry.values.push(value);
        }
        await sleep(everyMs, undefined, { signal }).catch(() => {});
      }
    },
    figures: () =>
      [...seen].flatMap(([{ name }, { sinceMs, lastMs, values }]) => {
        const [first] = values;
        const last = values.at(-1);
        if (first === undefined || last === undefined || lastMs - sinceMs < leastLifeMs) return [];
        const seconds = Math.round((lastMs - sinceMs) / 1_000);
        return [{ name, seconds, first_mib: first, last_mib: last, max_mib: Math.max(...values) }];
      }),
  };
}
