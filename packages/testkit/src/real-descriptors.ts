import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** Descriptors of real faces: count × dim, unit norm, with the identity and the image of each row. */
export interface RealDescriptors {
  dim: number;
  count: number;
  vectors: Float32Array;
  identities: string[];
  images: string[];
}

const realDim = 128;

/**
 * Real descriptors where LIM_TEST_DATA (default ./test-data) has them: `descriptors/lfw.f32` (rows of 128 float32,
 * little-endian) and `lfw.csv` (row, identity, image, quality). Undefined where it has not; throws where the two files
 * do not fit each other.
 */
export async function loadRealDescriptors(): Promise<RealDescriptors | undefined> {
  const folder = join(process.env.LIM_TEST_DATA ?? "test-data", "descriptors");
  const [data, table] = await Promise.all([
    readIfThere(join(folder, "lfw.f32")),
    readIfThere(join(folder, "lfw.csv")),
  ]);
  if (data === undefined || table === undefined) return undefined;
  const rows = table
    .toString("utf8")
    .trim()
    .split(/\r?\n/)
    .slice(1)
    .map((line) => line.split(","));
  const rowBytes = realDim * Float32Array.BYTES_PER_ELEMENT;
  const ordered = rows.every((row, index) => Number(row[0]) === index && row[1] !== undefined);
  if (data.length !== rows.length * rowBytes || !ordered)
    throw new Error(`${folder}: lfw.csv names ${rows.length} rows, lfw.f32 holds ${data.length / rowBytes}`);
  return {
    dim: realDim,
    count: rows.length,
    vectors: new Float32Array(new Uint8Array(data).buffer),
    identities: rows.map((row) => row[1] ?? ""),
    images: rows.map((row) => row[2] ?? ""),
  };
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
