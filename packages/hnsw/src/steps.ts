// Changes that become visible one after another, while the rows of later ones are being linked.
import {
  change,
  checkAll,
  checkRemoved,
  commit,
  ensureFits,
  insertAll,
  type Rows,
  takeBack,
} from "./changes.ts";
import type { IndexCore } from "./core.ts";
import { badInput, HnswError, throwIfAborted } from "./errors.ts";
import { maxChangeKeys, stepRowsPerJob } from "./limits.ts";
import { wholeRow } from "./protocol.ts";
import { makeRoom } from "./sweeps.ts";

/** A change of several that become visible one after another. */
export interface Step {
  rows: Rows;
  removed: Uint32Array;
}

interface StepOptions {
  signal: AbortSignal | undefined;
  onCommitted?: ((step: number) => void) | undefined;
}

/**
 * Each becomes visible at once, in their order, while the rows of later ones are being linked: no thread waits for one to
 * be committed. `onCommitted` is told in the same turn. When it fails, or is aborted, those committed stay, and of the
 * others nothing is left. No key may be in two of them, or twice in one.
 */
export async function changeInSteps(
  core: IndexCore,
  steps: readonly Step[],
  options: StepOptions,
): Promise<void> {
  const { signal } = options;
  await checkSteps(core, steps, signal);
  const total = steps.reduce((sum, { rows }) => sum + rows.keys.length, 0);
  if (await hasRoom(core, total, signal)) await linkTogether(core, steps, total, options);
  else await changeInTurn(core, steps, options);
}

/** Those that find room, each with what the ones before have freed. */
async function changeInTurn(
  core: IndexCore,
  steps: readonly Step[],
  { signal, onCommitted }: StepOptions,
): Promise<void> {
  const { threads } = core.scheduler;
  for (const [step, { rows, removed }] of steps.entries()) {
    core.ensureUsable();
    throwIfAborted(signal);
    await change(core, rows, removed, { threads, signal });
    onCommitted?.(step);
  }
}

/** `hasRoom` must have been asked just before. */
async function linkTogether(
  core: IndexCore,
  steps: readonly Step[],
  total: number,
  { signal, onCommitted }: StepOptions,
): Promise<void> {
  throwIfAborted(signal);
  const { dim } = core.layout;
  const staging = core.scheduler.takeStaging(dim * Math.max(total, 16));
  const first = core.committed + 1;
  const slots = new Uint32Array(total);
  const done = new Uint8Array(new SharedArrayBuffer(total));
  const ends: number[] = [];
  for (const [step, { rows }] of steps.entries()) {
    const at = ends.at(-1) ?? 0;
    staging.rows.set(rows.vectors, at * dim);
    slots.set(core.slots.allocate(rows.keys, first + step), at);
    ends.push(at + rows.keys.length);
  }
  let whole = 0;
  let committed = 0;
  const advanced = () => {
    while (whole < total && Atomics.load(done, whole) === wholeRow) whole++;
    while (committed < steps.length && (ends[committed] as number) <= whole) {
      const step = committed++;
      const { rows, removed } = steps[step] as Step;
      const inserted = { keys: rows.keys, slots: slots.subarray(ends[step - 1] ?? 0, ends[step]) };
      commit(core, [inserted], removed, first + step);
      onCommitted?.(step);
    }
  };
  try {
    advanced();
    const { instances } = core.scheduler;
    if (total > 0)
      await insertAll(
        core,
        { rows: staging.rows, slots, done, rowsPerJob: stepRowsPerJob },
        { threads: instances, signal, advanced },
      );
  } catch (error) {
    const from = ends[committed - 1] ?? 0;
    takeBack(core, slots.subarray(from), done.subarray(from));
    throw error;
  } finally {
    core.scheduler.giveStaging(staging);
  }
}

/** Whether slots for all of them can be allocated, and the memory they take is there. */
async function hasRoom(core: IndexCore, total: number, signal: AbortSignal | undefined): Promise<boolean> {
  const { slots } = core;
  try {
    ensureFits(core, total);
    await makeRoom(core, total, signal);
    slots.reserve(slots.used + Math.max(0, total - slots.free));
    return true;
  } catch (error) {
    if (error instanceof HnswError && error.code === "full") return false;
    throw error;
  }
}

async function checkSteps(
  core: IndexCore,
  steps: readonly Step[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const seen = new Set<number>();
  let keys = 0;
  for (const { rows, removed } of steps) {
    keys += rows.keys.length + removed.length;
    if (keys > maxChangeKeys) throw badInput(`changes have ${maxChangeKeys} keys at most, all together`);
    await checkAll(core, rows, signal);
    checkRemoved(core, removed, seen, 0, removed.length);
    for (const key of rows.keys) {
      if (seen.has(key)) throw badInput(`key ${key} is there twice`);
      seen.add(key);
    }
  }
}
