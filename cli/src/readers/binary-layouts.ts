import { decodeVector, LimError } from "@lim/contracts";
import type { RowLayout } from "./fixed-rows.ts";

interface BinaryFile {
  path: string;
  sizeBytes: number;
  dim: number;
}

const refused = (path: string, reason: string) => new LimError("bad_input", `${path}: ${reason}`);

/** Of a file that says itself how many numbers its vectors have. */
function assertDim({ path, dim }: BinaryFile, found: number): void {
  if (found !== dim)
    throw refused(
      path,
      `its vectors have ${found} numbers, not ${dim}: another file, or --dim ${found} (LIM_DESCRIPTOR_DIM=${found} for all services)`,
    );
}

/** `.f32`: rows of `dim` float32 little-endian, nothing else. */
export function f32Layout({ path, sizeBytes, dim }: BinaryFile): RowLayout {
  const rowBytes = dim * 4;
  if (sizeBytes === 0 || sizeBytes % rowBytes !== 0)
    throw new LimError(
      "bad_input",
      `${path} has ${sizeBytes} bytes, not a multiple of ${rowBytes} (dim ${dim} × 4): wrong --dim?`,
    );
  return { headBytes: 0, rowBytes, decode: decodeVector };
}

/** `.fvecs`: before each row of float32 its length as int32, both little-endian. `head`: the first bytes of the file. */
export function fvecsLayout(file: BinaryFile, head: Buffer): RowLayout {
  const { path, sizeBytes, dim } = file;
  if (head.length < 4) throw refused(path, "is empty or cut off");
  const found = head.readInt32LE(0);
  if (found < 1 || found > 1 << 16)
    throw refused(path, `is no .fvecs file (its first row has ${found} numbers)`);
  assertDim(file, found);
  const rowBytes = 4 + dim * 4;
  if (sizeBytes % rowBytes !== 0)
    throw refused(path, `has ${sizeBytes} bytes, not a multiple of ${rowBytes} (4 + ${dim} × 4): cut off?`);
  return {
    headBytes: 0,
    rowBytes,
    decode(bytes, row) {
      const length = bytes.readInt32LE(0);
      if (length !== dim) throw refused(path, `row ${row} has ${length} numbers, the rows before ${dim}`);
      return decodeVector(bytes.subarray(4));
    },
  };
}

/** Bytes that are read to learn a file's layout: NumPy's headers are far shorter. */
export const layoutHeadBytes = 1 << 16;
const npyMagic = Buffer.from("\x93NUMPY", "latin1");

/**
 * `.npy` of versions 1 to 3: an array (rows, dim), or (dim) for one row, of float32 or float64, little-endian, in C
 * order; all else is refused with what to do in NumPy. `head`: the first bytes of the file.
 */
export function npyLayout(file: BinaryFile, head: Buffer): RowLayout {
  const { path, sizeBytes, dim } = file;
  const { type, isFortran, shape, headBytes } = readNpyHeader(path, head);
  const save = (what: string) => `save it as np.save(path, ${what})`;
  if (type !== "<f4" && type !== "<f8")
    throw refused(path, `holds ${type}, not float32 or float64 little-endian: ${save("a.astype('<f4')")}`);
  if (isFortran) throw refused(path, `is in Fortran order: ${save("np.ascontiguousarray(a)")}`);
  if (shape.length !== 1 && shape.length !== 2)
    throw refused(path, `has shape (${shape.join(", ")}): ${save(`a.reshape(-1, ${dim})`)}`);
  const rows = shape.length === 1 ? 1 : (shape[0] ?? 0);
  const found = shape.at(-1) ?? 0;
  if (rows === 0) throw refused(path, "holds no rows");
  assertDim(file, found);
  const rowBytes = dim * (type === "<f4" ? 4 : 8);
  const expected = headBytes + rows * rowBytes;
  if (sizeBytes !== expected)
    throw refused(
      path,
      `has ${sizeBytes} bytes, its header says ${expected}: cut off, or not written to its end`,
    );
  return { headBytes, rowBytes, decode: type === "<f4" ? decodeVector : decodeDoubles };
}

function decodeDoubles(bytes: Buffer): Float32Array {
  const vector = new Float32Array(bytes.length / 8);
  for (let i = 0; i < vector.length; i++) vector[i] = bytes.readDoubleLE(i * 8);
  return vector;
}

interface NpyHeader {
  type: string;
  isFortran: boolean;
  shape: number[];
  headBytes: number;
}

function readNpyHeader(path: string, head: Buffer): NpyHeader {
  if (head.length < 10 || !head.subarray(0, 6).equals(npyMagic)) throw refused(path, "is no .npy file");
  const version = head[6] ?? 0;
  if (version < 1 || version > 3) throw refused(path, `is of .npy version ${version}; 1 to 3 are read`);
  const lengthBytes = version === 1 ? 2 : 4;
  const begin = 8 + lengthBytes;
  if (head.length < begin) throw refused(path, "is cut off in its header");
  const headBytes = begin + (version === 1 ? head.readUInt16LE(8) : head.readUInt32LE(8));
  if (headBytes > layoutHeadBytes) throw refused(path, `has a header of ${headBytes} bytes: too long`);
  if (head.length < headBytes) throw refused(path, "is cut off in its header");
  const text = head.toString("utf8", begin, headBytes);
  const type = /['"]descr['"]\s*:\s*(?:'([^']*)'|"([^"]*)"|(\[))/.exec(text);
  const order = /['"]fortran_order['"]\s*:\s*(True|False)/.exec(text);
  const shape = shapeOf(/['"]shape['"]\s*:\s*\(([^()]*)\)/.exec(text)?.[1]);
  if (!type || !order || !shape) throw refused(path, "has a header that does not name type, order and shape");
  if (type[3] !== undefined) throw refused(path, "holds records of several fields, not numbers");
  return {
    type: type[1] ?? type[2] ?? "",
    isFortran: order[1] === "True",
    shape,
    headBytes,
  };
}

/** Of what stands in the parentheses; undefined where that is no list of numbers. */
function shapeOf(text: string | undefined): number[] | undefined {
  const parts = text?.split(",").map((part) => part.trim());
  if (parts?.at(-1) === "") parts.pop();
  return parts?.every((part) => /^\d+L?$/.test(part))
    ? parts.map((part) => Number.parseInt(part, 10))
    : undefined;
}
