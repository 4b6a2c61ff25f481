import { writeSync } from "node:fs";
import { sweepSlotsPerStep } from "./limits.ts";
import {
  endWord,
  type InsertJob,
  type MendJob,
  nextWord,
  type SweepJob,
  type WriteReply,
} from "./protocol.ts";
import { type Opened, rowBytesInFile } from "./worker-index.ts";

const searchesWait = (yieldWord: Int32Array): boolean => Atomics.load(yieldWord, 0) !== 0;

function writeRow(file: number, bytes: Uint8Array, position: number): void {
  for (let written = 0; written < bytes.length; )
    written += writeSync(file, bytes, written, bytes.length - written, position + written);
}

/** Takes rows from those that all threads of the slice share, until there are none or searches wait. */
export function runInsert(opened: Opened, job: InsertJob, yieldWord: Int32Array): WriteReply {
  const { exports, memory, layout, rows: file } = opened;
  const { rows, slots, done, control, used, maxRows, minRows } = job;
  const { dim } = layout;
  const at = exports.queriesAt.value;
  const row = new Float32Array(memory.buffer, at, dim);
  let count = 0;
  while (count < maxRows && (count < minRows || !searchesWait(yieldWord))) {
    const i = Atomics.add(control, nextWord, 1);
    if (i >= Atomics.load(control, endWord)) return { finished: true, count };
    const slot = slots[i] as number;
    row.set(rows.subarray(i * dim, (i + 1) * dim));
    exports.insert(slot, at, used);
    Atomics.store(done, i, 1);
    // After the insertion: it brought the row to norm 1 where the metric wants that.
    if (file !== undefined) {
      const rowBytes = rowBytesInFile(layout);
      writeRow(file, new Uint8Array(memory.buffer, at, rowBytes), slot * rowBytes);
    }
    count++;
  }
  return { finished: Atomics.load(control, nextWord) >= Atomics.load(control, endWord), count };
}

export function runSweep(opened: Opened, job: SweepJob, yieldWord: Int32Array): WriteReply {
  const { control, version, used, maxSlots, minSlots } = job;
  let swept = 0;
  let count = 0;
  while (swept < maxSlots && (swept < minSlots || !searchesWait(yieldWord))) {
    const from = Atomics.add(control, nextWord, sweepSlotsPerStep);
    const end = Atomics.load(control, endWord);
    if (from >= end) return { finished: true, count };
    count += opened.exports.sweepRange(from, Math.min(from + sweepSlotsPerStep, end), version, used);
    swept += sweepSlotsPerStep;
  }
  return { finished: Atomics.load(control, nextWord) >= Atomics.load(control, endWord), count };
}

export function runMend(opened: Opened, job: MendJob): WriteReply {
  opened.exports.mendEntry(job.version, job.used);
  return { finished: true, count: opened.exports.mendOrphans(job.used) };
}
