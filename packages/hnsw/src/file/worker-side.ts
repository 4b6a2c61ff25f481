import { HnswError } from "../errors.ts";
import type { EngineExports } from "../exports.ts";
import type { FileArgument, FileStep } from "../protocol.ts";

/** Runs in a thread of the pool; `exports` are attached to the index in `memory`. */
export function runFilePart(
  _exports: EngineExports,
  _memory: WebAssembly.Memory,
  _step: FileStep,
  _argument: FileArgument,
): unknown {
  throw new HnswError("failed", "files are not there yet");
}
