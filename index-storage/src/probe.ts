import { setImmediate } from "node:timers/promises";
import { LimError, readUuid, uuidBytes } from "@lim/contracts";
import type { KeyedIndex } from "@lim/vector-index";
import { assertLive } from "./files.ts";
import { storageLimits } from "./layout.ts";
import { NearestByScan } from "./nearest.ts";

/** Vectors of the recall sample that are read at once. */
const readStepRows = 512;

/** Positions of `ids` that hold a face, at most `most`, evenly spread. */
export function samplePositions(ids: Uint8Array, most: number): Uint32Array {
  const slots = ids.length / uuidBytes;
  let live = 0;
  for (let position = 0; position < slots; position++) if (!isRemoved(ids, position)) live++;
  const sample = new Uint32Array(Math.min(most, live));
  // A matcher answers on this thread: no list of a million positions for a handful of them.
  for (let position = 0, passed = 0, taken = 0; taken < sample.length; position++) {
    if (isRemoved(ids, position)) continue;
    if (passed++ === Math.floor((taken * live) / sample.length)) sample[taken++] = position;
  }
  return sample;
}

export function isRemoved(ids: Uint8Array, position: number): boolean {
  for (let i = position * uuidBytes; i < (position + 1) * uuidBytes; i++) if (ids[i] !== 0) return false;
  return true;
}

export function removedPositions(ids: Uint8Array): Uint32Array {
  const removed: number[] = [];
  for (let position = 0; position * uuidBytes < ids.length; position++)
    if (isRemoved(ids, position)) removed.push(position);
  return Uint32Array.from(removed);
}

/** Share of `positions` whose vectors find their own face with a similarity of one. */
export async function selfFoundShare(
  keyed: KeyedIndex,
  ids: Uint8Array,
  positions: Uint32Array,
  vectors: Float32Array,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { recallEf: ef, recallK: limit } = storageLimits;
  const answers = await keyed.search(vectors, { limit, ef, signal });
  let found = 0;
  answers.forEach((matches, i) => {
    const own = readUuid(ids, (positions[i] ?? 0) * uuidBytes);
    const equals = matches.filter(([, similarity]) => similarity >= 1 - keyed.index.similarityTolerance);
    // Where as many others have the same vector, any of them is a right answer.
    if (equals.some(([faceId]) => faceId === own) || equals.length === limit) found++;
  });
  return positions.length === 0 ? 1 : found / positions.length;
}

/** How many of `count` faces are compared exactly to estimate recall. */
export function recallSampleSize(count: number): number {
  const { recallSampleShare, minRecallSample, maxRecallSample } = storageLimits;
  const share = Math.min(maxRecallSample, Math.max(minRecallSample, Math.ceil(count * recallSampleShare)));
  return Math.min(count, share);
}

/**
 * Recall@k of the index for some of its own vectors. Where `recallSampleSize` is all faces it is exact; above, better faces of
 * the sample that an answer lacks count for those that were not sampled. Holds a step of the sample in memory, not all.
 */
export async function sampledRecall(
  keyed: KeyedIndex,
  ids: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { recallK: limit, recallEf: ef, probeVectors } = storageLimits;
  const positions = samplePositions(ids, recallSampleSize(keyed.count));
  const queryCount = Math.min(probeVectors, positions.length);
  if (queryCount === 0) return 1;
  const asked = Uint32Array.from(
    { length: queryCount },
    (_, i) => positions[Math.floor((i * positions.length) / queryCount)] ?? 0,
  );
  const queries = await keyed.index.read(asked, { signal });
  const answers = await keyed.search(queries, { limit, ef, signal });
  const truth = new NearestByScan(queries, keyed.index.dim, limit);
  for (let from = 0; from < positions.length; from += readStepRows) {
    const step = positions.subarray(from, from + readStepRows);
    const vectors = await keyed.index.read(step, { signal });
    truth.offer(step, vectors);
    // A collector would leave all steps lying about.
    if (vectors.buffer instanceof ArrayBuffer) vectors.buffer.transfer(0);
    await setImmediate();
    assertLive(signal);
  }
  const k = Math.min(limit, keyed.count);
  const weight = keyed.count / positions.length;
  let sum = 0;
  answers.forEach((answer, i) => {
    const held = new Set(answer.map(([faceId]) => faceId));
    const worst = answer.length < k ? -1 : (answer.at(-1)?.[1] ?? -1);
    const missed = truth
      .of(i)
      .filter(
        ({ position, similarity }) =>
          Math.min(1, Math.max(0, similarity)) > worst + 1e-6 &&
          !held.has(readUuid(ids, position * uuidBytes)),
      ).length;
    sum += Math.max(0, 1 - (missed * weight) / k);
  });
  return sum / queryCount;
}

/**
 * Compares a reopened index with what was built. `known`: the vectors of `samplePositions(ids, probeVectors)` as the
 * built one held them. Throws `verification_failed`.
 */
export async function verifyReopened(
  reopened: KeyedIndex,
  known: Float32Array,
  ids: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<number> {
  const positions = samplePositions(ids, storageLimits.probeVectors);
  const read = await reopened.index.read(positions, { signal });
  if (known.length !== read.length || !known.every((value, i) => value === read[i]))
    throw new LimError("verification_failed", "reopened index holds other vectors than were saved");
  const share = await selfFoundShare(reopened, ids, positions, known, signal);
  if (share < storageLimits.minProbeShare)
    throw new LimError("verification_failed", `only ${share} of known vectors find themselves`);
  const recall = await sampledRecall(reopened, ids, signal);
  if (recall < storageLimits.minSampledRecall)
    throw new LimError("verification_failed", `sampled recall@${storageLimits.recallK} is ${recall}`);
  return recall;
}
