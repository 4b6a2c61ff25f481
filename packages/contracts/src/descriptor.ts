import { LimError } from "./errors.ts";
import { limits } from "./limits.ts";

/** A descriptor on the wire: 4 bytes `dp\0\0`, uint32 LE descriptor version, then dim × float32 LE. */
export const descriptorHeaderBytes = 8;
const magic = Buffer.from("dp\0\0", "latin1");

export interface WireDescriptor {
  descriptorVersion: number;
  vector: Float32Array;
}

export function encodeDescriptor(vector: Float32Array, descriptorVersion: number): Buffer {
  const out = Buffer.allocUnsafe(descriptorHeaderBytes + vector.length * 4);
  magic.copy(out, 0);
  out.writeUInt32LE(descriptorVersion, 4);
  // Typed arrays are little-endian wherever Node runs; `decodeVector` relies on it as well.
  out.set(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength), descriptorHeaderBytes);
  return out;
}

/** Throws `bad_match_request` on a wrong header or length. Values are not judged here: see `normalize`. */
export function decodeDescriptor(bytes: Uint8Array): WireDescriptor {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  checkDescriptor(view);
  return {
    descriptorVersion: view.readUInt32LE(4),
    vector: decodeVector(view.subarray(descriptorHeaderBytes)),
  };
}

/**
 * As `decodeDescriptor`, into the place `at` of `matrix` (n × dim), so that a batch needs no array of each. Returns the
 * descriptor's version and its number of dimensions; where that is not `dim` nothing was written.
 */
export function decodeDescriptorInto(
  matrix: { bytes: Uint8Array; dim: number },
  at: number,
  descriptor: Buffer,
): { descriptorVersion: number; dim: number } {
  checkDescriptor(descriptor);
  const { bytes, dim } = matrix;
  const own = (descriptor.length - descriptorHeaderBytes) / 4;
  if (own === dim) descriptor.copy(bytes, at * dim * 4, descriptorHeaderBytes);
  return { descriptorVersion: descriptor.readUInt32LE(4), dim: own };
}

function checkDescriptor(descriptor: Buffer): void {
  if (descriptor.length < descriptorHeaderBytes || descriptor.compare(magic, 0, 4, 0, 4) !== 0)
    throw new LimError("bad_match_request", "descriptor lacks its 8-byte header (dp\\0\\0, version)");
  const body = descriptor.length - descriptorHeaderBytes;
  if (body % 4 !== 0 || body / 4 < limits.minDim || body / 4 > limits.maxDim)
    throw new LimError("bad_match_request", `descriptor has ${body} bytes after its header, not dim × 4`);
}

/** Float32 little-endian bytes as an own, aligned Float32Array. Length must be a multiple of 4. */
export function decodeVector(bytes: Uint8Array): Float32Array {
  const copy = new Uint8Array(bytes.byteLength);
  copy.set(bytes);
  return new Float32Array(copy.buffer);
}

export type VectorFault = "wrong_length" | "not_finite" | "zero_norm";

/**
 * Scales `vector` to unit norm in place. Returns the fault instead where it cannot: wrong length, NaN or
 * infinite values, or a norm too small to divide by.
 */
export function normalize(vector: Float32Array, dim: number): VectorFault | undefined {
  if (vector.length !== dim) return "wrong_length";
  let sum = 0;
  for (let i = 0; i < dim; i++) sum += (vector[i] as number) * (vector[i] as number);
  if (!Number.isFinite(sum)) return "not_finite";
  const norm = Math.sqrt(sum);
  if (norm < 1e-6) return "zero_norm";
  // Already unit to float32's precision: leave the bytes as they are, so that re-reading is idempotent.
  if (Math.abs(norm - 1) < 1e-6) return undefined;
  for (let i = 0; i < dim; i++) vector[i] = (vector[i] as number) / norm;
  return undefined;
}
