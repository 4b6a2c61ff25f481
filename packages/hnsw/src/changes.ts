// Changes of an index. New slots carry the next version, which no search sees; once all are linked the version is
// committed, in one turn of the event loop.
import { checkVectors } from "./check-vectors.ts";
import type { IndexCore } from "./core.ts";
import { pause } from "./core.ts";
import { badInput, HnswError, throwIfAborted } from "./errors.ts";
import {
  insertRowsPerJob,
  keysPerStep,
  maxChangeKeys,
  noWord,
  sliceBytes,
  sliceRows,
  spooledRowsPerJob,
  spooledSliceRows,
  wordsPerStep,
} from "./limits.ts";
import { endWord, type WriteReply, workWords } from "./protocol.ts";
import { housekeeping, makeRoom } from "./sweeps.ts";

export interface Rows {
  keys: Uint32Array;
  /** keys × dim. */
  vectors: Float32Array;
}

export interface InsertOptions {
  threads: number;
  signal: AbortSignal | undefined;
  onProgress?: ((rows: number) => void) | undefined;
}

/** All rows are looked at before the first is inserted. Returns how many keys are new. */
export async function checkAll(
  core: IndexCore,
  rows: Rows,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { dim } = core.layout;
  const step = Math.max(1, Math.floor(wordsPerStep / dim));
  let fresh = 0;
  for (let from = 0; from < rows.keys.length; from += step) {
    if (from > 0) await pause();
    throwIfAborted(signal);
    const to = Math.min(from + step, rows.keys.length);
    checkVectors("vector", rows.vectors, core.layout, from, to);
    for (let i = from; i < to; i++) {
      const key = rows.keys[i] as number;
      if (key === noWord) throw badInput(`${noWord} is not a key`);
      if (core.keys.get(key) < 0) fresh++;
    }
  }
  return fresh;
}

/** Numbers of the rows from..to-1; of those with the same key the last. */
function lastOfEach(keys: Uint32Array, from: number, to: number): number[] {
  const last = new Map<number, number>();
  for (let i = from; i < to; i++) last.set(keys[i] as number, i);
  return last.size === to - from ? Array.from({ length: to - from }, (_, i) => from + i) : [...last.values()];
}

/** As `lastOfEach` of all, in steps. */
async function lastOfAll(keys: Uint32Array): Promise<number[]> {
  const last = new Map<number, number>();
  for (let i = 0; i < keys.length; i++) {
    if (i % keysPerStep === keysPerStep - 1) await pause();
    last.set(keys[i] as number, i);
  }
  return [...last.values()];
}

interface Inserted {
  keys: Uint32Array;
  slots: Uint32Array;
}

/** Links rows into the graph, unseen yet. Takes them back where it fails. */
async function insertRows(
  core: IndexCore,
  rows: Rows,
  chosen: number[],
  version: number,
  options: InsertOptions,
): Promise<Inserted> {
  const { scheduler, layout } = core;
  const { dim } = layout;
  await makeRoom(core, chosen.length, options.signal);
  throwIfAborted(options.signal);
  const keys = Uint32Array.from(chosen, (i) => rows.keys[i] as number);
  const staging = scheduler.takeStaging(dim * Math.min(sliceLength(dim), Math.max(chosen.length, 16)));
  chosen.forEach((row, i) => {
    staging.rows.set(rows.vectors.subarray(row * dim, (row + 1) * dim), i * dim);
  });
  try {
    return await link(core, keys, staging.rows, version, options);
  } finally {
    scheduler.giveStaging(staging);
  }
}

/** `rows` of the keys, or undefined where they wait in the file at the slots that are next. */
async function link(
  core: IndexCore,
  keys: Uint32Array,
  rows: Float32Array | undefined,
  version: number,
  { threads, signal }: InsertOptions,
): Promise<Inserted> {
  const allocated = core.slots.allocate(keys, version);
  const done = new Uint8Array(new SharedArrayBuffer(keys.length));
  try {
    const rowsPerJob = rows === undefined ? spooledRowsPerJob : insertRowsPerJob;
    await insertAll(core, { rows, slots: allocated, done, rowsPerJob }, { threads, signal });
    return { keys, slots: allocated };
  } catch (error) {
    takeBack(core, allocated, done);
    throw error;
  }
}

/** Links slots into the graph; `done` tells how far each is. */
export async function insertAll(
  core: IndexCore,
  what: { rows: Float32Array | undefined; slots: Uint32Array; done: Uint8Array; rowsPerJob: number },
  { threads, signal, advanced }: InsertOptions & { advanced?: () => void },
): Promise<void> {
  const { scheduler, attachment } = core;
  const { rows, done, rowsPerJob } = what;
  const { used } = core.slots;
  const slots = new Uint32Array(new SharedArrayBuffer(4 * what.slots.length));
  slots.set(what.slots);
  const control = new Int32Array(new SharedArrayBuffer(4 * workWords));
  control[endWord] = slots.length;
  await scheduler.work({
    attachment,
    threads,
    writes: true,
    signal,
    job: (beside) => ({
      op: "insert",
      index: attachment.id,
      rows,
      slots,
      done,
      control,
      used,
      maxRows: rowsPerJob,
      minRows: beside ? rowsPerJob : 1,
    }),
    answered: (value) => {
      advanced?.();
      return (value as WriteReply).finished;
    },
    stop: () => Atomics.store(control, endWord, 0),
  });
}

/** Slots that were linked are dead from now on, for every version; the others are free. */
export function takeBack(core: IndexCore, slots: Uint32Array, done: Uint8Array | undefined): void {
  slots.forEach((slot, i) => {
    if (done !== undefined && done[i] === 0) core.slots.release(slot);
    else {
      core.slots.setDied(slot, 0);
      core.slots.bury(slot);
    }
  });
}

/**
 * First half of a large commit, in steps: slots that end with `version` are told so. Until it is committed, no search
 * heeds that.
 */
async function markEnded(
  core: IndexCore,
  inserted: Inserted[],
  removed: Uint32Array,
  version: number,
): Promise<void> {
  for (const keys of [...inserted.map((one) => one.keys), removed])
    for (let i = 0; i < keys.length; i++) {
      if (i % keysPerStep === keysPerStep - 1) await pause();
      const slot = core.keys.get(keys[i] as number);
      if (slot >= 0) core.slots.setDied(slot, version);
    }
}

/** In one turn of the event loop: a search sees all of it or nothing. */
export function commit(core: IndexCore, inserted: Inserted[], removed: Uint32Array, version: number): void {
  const end = (slot: number) => {
    if (slot < 0) return;
    core.slots.setDied(slot, version);
    core.slots.bury(slot);
  };
  for (const { keys, slots } of inserted)
    for (let i = 0; i < keys.length; i++) end(core.keys.set(keys[i] as number, slots[i] as number));
  for (const key of removed) end(core.keys.delete(key));
  core.committed = version;
}

const sliceLength = (dim: number): number =>
  Math.max(insertRowsPerJob, Math.min(sliceRows, Math.floor(sliceBytes / (4 * dim))));

export function ensureFits(core: IndexCore, slots: number): void {
  if (core.keys.size + slots > core.layout.maxSlots)
    throw new HnswError("full", `the index holds ${core.layout.maxSlots} slots at most`);
}

/** Adds or replaces, slice by slice. */
export async function upsert(core: IndexCore, rows: Rows, options: InsertOptions): Promise<void> {
  const { signal, onProgress } = options;
  const fresh = await checkAll(core, rows, signal);
  ensureFits(core, fresh);
  const length = sliceLength(core.layout.dim);
  for (let from = 0; from < rows.keys.length; from += length) {
    core.ensureUsable();
    throwIfAborted(signal);
    const to = Math.min(from + length, rows.keys.length);
    const version = core.committed + 1;
    const chosen = lastOfEach(rows.keys, from, to);
    commit(core, [await insertRows(core, rows, chosen, version, options)], new Uint32Array(), version);
    onProgress?.(to);
    if (to < rows.keys.length) await housekeeping(core);
  }
}

/** New keys for the rows that were spooled first and are not inserted yet, slice by slice. */
export async function insertSpooled(
  core: IndexCore,
  keys: Uint32Array,
  options: InsertOptions,
): Promise<void> {
  const { slots, spool } = core;
  if (spool === undefined || spool.isSaved) throw badInput("the index has no spooled rows to insert");
  // Where a row lies is the slot that it gets: none may have been given back meanwhile.
  if (slots.free + slots.dead + slots.retired > 0)
    throw badInput("spooled rows cannot be inserted after a removal, or an insertion that failed");
  if (slots.used + keys.length > spool.rows)
    throw badInput(`${keys.length} keys for ${spool.rows - slots.used} spooled rows`);
  const seen = new Set<number>();
  for (let i = 0; i < keys.length; i++) {
    if (i % keysPerStep === keysPerStep - 1) await pause();
    const key = keys[i] as number;
    if (key === noWord) throw badInput(`${noWord} is not a key`);
    if (seen.has(key) || core.keys.get(key) >= 0) throw badInput(`key ${key} is not new`);
    seen.add(key);
  }
  for (let from = 0; from < keys.length; from += spooledSliceRows) {
    core.ensureUsable();
    throwIfAborted(options.signal);
    const slice = keys.slice(from, from + spooledSliceRows);
    const version = core.committed + 1;
    commit(core, [await link(core, slice, undefined, version, options)], new Uint32Array(), version);
    options.onProgress?.(from + slice.length);
  }
}

export function checkRemoved(
  core: IndexCore,
  keys: Uint32Array,
  seen: Set<number>,
  from: number,
  to: number,
): void {
  for (let i = from; i < to; i++) {
    const key = keys[i] as number;
    if (core.keys.get(key) < 0) throw badInput(`there is no key ${key}`);
    if (seen.has(key)) throw badInput(`key ${key} is there twice`);
    seen.add(key);
  }
}

/** Removes, in steps that become visible one after another; unknown keys are found before the first. */
export async function remove(
  core: IndexCore,
  keys: Uint32Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  const seen = new Set<number>();
  for (let from = 0; from < keys.length; from += keysPerStep) {
    if (from > 0) await pause();
    throwIfAborted(signal);
    checkRemoved(core, keys, seen, from, Math.min(from + keysPerStep, keys.length));
  }
  for (let from = 0; from < keys.length; from += keysPerStep) {
    if (from > 0) await pause();
    core.ensureUsable();
    throwIfAborted(signal);
    commit(core, [], keys.subarray(from, from + keysPerStep), core.committed + 1);
  }
}

/** All of it becomes visible at once, or nothing. */
export async function change(
  core: IndexCore,
  rows: Rows,
  removed: Uint32Array,
  options: InsertOptions,
): Promise<void> {
  const { signal } = options;
  if (rows.keys.length + removed.length > maxChangeKeys)
    throw badInput(`a change has ${maxChangeKeys} keys at most`);
  const fresh = await checkAll(core, rows, signal);
  const seen = new Set<number>();
  checkRemoved(core, removed, seen, 0, removed.length);
  for (const key of rows.keys) if (seen.has(key)) throw badInput(`key ${key} is both added and removed`);
  // Replaced slots live until the commit: every row needs a slot of its own.
  ensureFits(core, Math.max(fresh, rows.keys.length));
  const version = core.committed + 1;
  const chosen = await lastOfAll(rows.keys);
  const length = sliceLength(core.layout.dim);
  const inserted: Inserted[] = [];
  try {
    for (let from = 0; from < chosen.length; from += length) {
      throwIfAborted(signal);
      inserted.push(await insertRows(core, rows, chosen.slice(from, from + length), version, options));
    }
    throwIfAborted(signal);
  } catch (error) {
    for (const { slots } of inserted) takeBack(core, slots, undefined);
    throw error;
  }
  await markEnded(core, inserted, removed, version);
  commit(core, inserted, removed, version);
}
