import { checkVectors } from "./check-vectors.ts";
import { HnswError } from "./errors.ts";
import { readFully, writeFully } from "./file/io.ts";
import { spooledRowsPerRead, sweepSlotsPerStep } from "./limits.ts";
import {
  endWord,
  type InsertJob,
  linkedRow,
  type MendJob,
  nextWord,
  type SweepJob,
  type WriteReply,
  wholeRow,
} from "./protocol.ts";
import { type Opened, rowBytesInFile, rowPosition } from "./worker-index.ts";

const searchesWait = (yieldWord: Int32Array): boolean => Atomics.load(yieldWord, 0) !== 0;

/** Takes rows from those that all threads of the slice share, until there are none or searches wait. */
export function runInsert(opened: Opened, job: InsertJob, yieldWord: Int32Array): WriteReply {
  const { exports, memory, layout, rows: file } = opened;
  const { rows, slots, done, control, used, maxRows, minRows } = job;
  if (rows === undefined) return runSpooled(opened, job, yieldWord);
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
    Atomics.store(done, i, linkedRow);
    // After the insertion: it brought the row to norm 1 where the metric wants that.
    if (file !== undefined) {
      const bytes = new Uint8Array(memory.buffer, at, rowBytesInFile(layout));
      writeFully(file, bytes, 0, bytes.length, rowPosition(layout, slot));
    }
    Atomics.store(done, i, wholeRow);
    count++;
  }
  return { finished: Atomics.load(control, nextWord) >= Atomics.load(control, endWord), count };
}

const spoolEnds = () => new HnswError("failed", "the file of rows is too short");

/** As above, of rows that wait in the file: they go from there to where they are inserted from, and nowhere else. */
function runSpooled(opened: Opened, job: InsertJob, yieldWord: Int32Array): WriteReply {
  const { exports, memory, layout, rows: file } = opened;
  const { slots, done, control, used, maxRows, minRows } = job;
  if (file === undefined) throw new HnswError("failed", "the index has no file of rows");
  const { paddedDim, metric } = layout;
  const rowBytes = rowBytesInFile(layout);
  const at = exports.queriesAt.value;
  const rows = new Float32Array(memory.buffer, at, spooledRowsPerRead * paddedDim);
  const bytes = new Uint8Array(memory.buffer, at, rows.byteLength);
  let count = 0;
  while (count < maxRows && (count < minRows || !searchesWait(yieldWord))) {
    const from = Atomics.add(control, nextWord, spooledRowsPerRead);
    const to = Math.min(from + spooledRowsPerRead, Atomics.load(control, endWord));
    if (from >= to) return { finished: true, count };
    const first = slots[from] as number;
    readFully(file, bytes, 0, (to - from) * rowBytes, rowPosition(layout, first), spoolEnds);
    checkVectors(`spooled row ${first} +`, rows, { dim: paddedDim, metric }, 0, to - from);
    for (let i = from; i < to && i < Atomics.load(control, endWord); i++) {
      exports.insert(slots[i] as number, at + (i - from) * rowBytes, used);
      Atomics.store(done, i, wholeRow);
      count++;
    }
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
