// Removed slots leave the graph by a sweep, and are free once no search can meet them.
import type { IndexCore } from "./core.ts";
import { pause } from "./core.ts";
import { abortedError, HnswError } from "./errors.ts";
import {
  deadShareToSweep,
  keysPerStep,
  lastVersion,
  minDeadToSweep,
  noWord,
  sweepSlotsPerJob,
} from "./limits.ts";
import { endWord, type WriteReply, workWords } from "./protocol.ts";

function sharedRange(end: number): Int32Array {
  const control = new Int32Array(new SharedArrayBuffer(4 * workWords));
  control[endWord] = end;
  return control;
}

/**
 * Repairs every link to a slot that no running search can see any more: those that still see it need the links.
 * No change may be running.
 */
export async function sweep(core: IndexCore, signal: AbortSignal | undefined): Promise<void> {
  const { scheduler, attachment, slots } = core;
  const { used } = slots;
  const version = sweepVersion(core);
  const index = attachment.id;
  if (slots.deadAt(version) > 0) {
    const control = sharedRange(used);
    await scheduler.work({
      attachment,
      threads: scheduler.threads,
      writes: true,
      signal,
      job: (beside) => ({
        op: "sweep",
        index,
        control,
        version,
        used,
        maxSlots: sweepSlotsPerJob,
        minSlots: beside ? sweepSlotsPerJob : 1,
      }),
      answered: (value) => (value as WriteReply).finished,
      stop: () => Atomics.store(control, endWord, 0),
    });
  }
  await scheduler.work({
    attachment,
    threads: 1,
    writes: true,
    signal,
    job: () => ({ op: "mend", index, version, used }),
    answered: () => true,
  });
  slots.retireDead(version, core.ledger.next);
  core.freeSome();
}

const sweepVersion = ({ ledger, committed }: IndexCore): number =>
  Math.min(ledger.oldestVersion ?? committed, committed);

function isSweepDue(core: IndexCore): boolean {
  const { slots } = core;
  const enough = Math.max(minDeadToSweep, slots.used * deadShareToSweep);
  return slots.dead > enough && slots.deadAt(sweepVersion(core)) > enough;
}

/** As `sweep`, of everything that was removed so far: searches begun before are waited for. */
export async function fullSweep(core: IndexCore, signal: AbortSignal | undefined): Promise<void> {
  await searchesEnded(core, signal);
  await sweep(core, signal);
  await core.freeAll();
}

/** Resolves once every search begun so far has ended; what they held is free then. */
export async function searchesEnded(core: IndexCore, signal: AbortSignal | undefined): Promise<void> {
  const ended = core.ledger.drained(core.ledger.next);
  if (signal === undefined) await ended;
  else {
    const { promise, reject } = Promise.withResolvers<never>();
    const onAbort = () => reject(abortedError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([ended, promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
  await core.freeAll();
}

/** Sees to it that `count` slots can be allocated; `full` where they cannot. */
export async function makeRoom(
  core: IndexCore,
  count: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { slots } = core;
  await core.freeAll();
  if (slots.available >= count) return;
  if (slots.dead > 0) await fullSweep(core, signal);
  if (slots.available < count && slots.retired > 0) await searchesEnded(core, signal);
  if (slots.available < count)
    throw new HnswError("full", `the index holds ${core.layout.maxSlots} slots at most`);
}

/**
 * Numbers versions anew before they run out: everything live is of version 0 then. A search must never see versions of
 * both numberings, so those begun before have to end first, and no change starts before they have.
 */
export async function renumber(core: IndexCore): Promise<void> {
  const { slots } = core;
  await fullSweep(core, undefined);
  await searchesEnded(core, undefined);
  for (let slot = 0; slot < slots.used; slot++) {
    if (slot % keysPerStep === keysPerStep - 1) await pause();
    if (slots.bornOf(slot) !== noWord) slots.setBorn(slot, 0);
  }
  core.committed = 1;
  await searchesEnded(core, undefined);
}

/** Between changes. What it cannot do now it does next time. */
export async function housekeeping(core: IndexCore): Promise<void> {
  if (core.closed || core.failure !== undefined || core.scheduler.closed) return;
  try {
    if (core.committed >= lastVersion) await renumber(core);
    else if (isSweepDue(core)) await sweep(core, undefined);
  } catch (error) {
    core.failedBy(error);
  }
}
