import { readFile } from "node:fs/promises";
import { HnswError } from "./errors.ts";

// (module (func (result v128) … i32x4.relaxed_dot_i8x16_i7x16_add_s)): whether this compiles tells if the engine will.
const relaxedSimdProbe = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b],
  ...[0x03, 0x02, 0x01, 0x00],
  ...[0x0a, 0x13, 0x01, 0x11, 0x00],
  ...[0x41, 0x00, 0xfd, 0x0f, 0x41, 0x00, 0xfd, 0x0f, 0x41, 0x00, 0xfd, 0x0f, 0xfd, 0x93, 0x02, 0x0b],
);

export const isSupported = (): boolean => WebAssembly.validate(relaxedSimdProbe);

let compiled: Promise<WebAssembly.Module> | undefined;

/** The engine's module: compiled once for the process, then posted to threads. */
export function engineModule(): Promise<WebAssembly.Module> {
  if (!isSupported())
    return Promise.reject(
      new HnswError(
        "unsupported",
        `Node ${process.versions.node} has no WebAssembly relaxed SIMD; Node ≥ 22 has`,
      ),
    );
  compiled ??= readFile(new URL("../dist/hnsw.wasm", import.meta.url))
    .then((bytes) => WebAssembly.compile(bytes))
    .catch((cause: unknown) => {
      compiled = undefined;
      throw new HnswError("failed", "the engine's module could not be read", { cause });
    });
  return compiled;
}
