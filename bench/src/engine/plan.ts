// What a churned index goes through: the same for the process that changes it and for the exact answers.
import { shuffle } from "./shuffle.ts";

export interface ChurnStep {
  /** Share of the content replaced so far, in percent. */
  percent: number;
  /** Replacements since the step before. */
  keys: Uint32Array;
  rows: Uint32Array;
  /** Key → row after this step. */
  rowOf: Uint32Array;
}

export const churnPercents = [50, 100, 200] as const;

/** Each hundred percent replaces every key once, in an order of its own, by rows never used before. */
export function churnSteps(size: number, seed: number): ChurnStep[] {
  const passes = 2;
  const order = Array.from({ length: passes }, (_, pass) => Array.from(shuffle(size, seed + pass))).flat();
  const rowOf = Uint32Array.from({ length: size }, (_, key) => key);
  let done = 0;
  return churnPercents.map((percent) => {
    const until = Math.round((size * percent) / 100);
    const keys = Uint32Array.from(order.slice(done, until));
    const rows = keys.map((_, i) => size + done + i);
    keys.forEach((key, i) => {
      rowOf[key] = rows[i] ?? 0;
    });
    done = until;
    return { percent, keys, rows, rowOf: rowOf.slice() };
  });
}
