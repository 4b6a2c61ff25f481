import { uuidBytes, writeUuid } from "@lim/contracts";
import { type FaceGenerator, faceIdOf } from "@lim/testkit";
import type { KeyedIndex } from "@lim/vector-index";

const batchRows = 1_000;

/** Inserts the persons of a list from `firstPerson` on; returns how long the engine was at it, and its processor time. */
async function insert(
  generator: FaceGenerator,
  keyed: KeyedIndex,
  options: { name: string; firstPerson: number; faces: number; threads?: number },
): Promise<{ elapsedMs: number; cpuMs: number }> {
  const { name, faces, threads } = options;
  let elapsedMs = 0;
  let cpuMs = 0;
  for (let from = 0; from < faces; from += batchRows) {
    const rows = Math.min(batchRows, faces - from);
    const firstPerson = options.firstPerson + from;
    const vectors = generator.matrix({ firstPerson, persons: rows });
    const faceIds = new Uint8Array(rows * uuidBytes);
    for (let row = 0; row < rows; row++)
      writeUuid(faceIdOf(name, firstPerson + row), faceIds, row * uuidBytes);
    const before = process.cpuUsage();
    const startedMs = performance.now();
    await keyed.addNew(faceIds, vectors, threads === undefined ? {} : { threads });
    elapsedMs += performance.now() - startedMs;
    const used = process.cpuUsage(before);
    cpuMs += (used.user + used.system) / 1_000;
  }
  return { elapsedMs, cpuMs };
}

/** What one thread of the engine inserts, into an index that has grown to `size` faces before. */
export async function insertRate(
  generator: FaceGenerator,
  keyed: KeyedIndex,
  options: { name: string; size: number; faces: number },
): Promise<{ perS: number; cpuMsPerRow: number }> {
  const { name, size, faces } = options;
  const held = keyed.count;
  await insert(generator, keyed, { name, firstPerson: held, faces: Math.max(0, size - held) });
  const timed = await insert(generator, keyed, { name, firstPerson: keyed.count, faces, threads: 1 });
  return { perS: (faces * 1_000) / timed.elapsedMs, cpuMsPerRow: timed.cpuMs / faces };
}
