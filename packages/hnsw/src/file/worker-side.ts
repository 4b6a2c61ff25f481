// Saving and loading in a thread of the pool: bytes go between the file and the shared memory without passing through
// JavaScript's heap, one chunk at a time, while a core's cache holds it.
import type { EngineExports } from "../exports.ts";
import { maxResults } from "../layout.ts";
import type { FileArgument, FileStep } from "../protocol.ts";
import { chunkBytes } from "./format.ts";
import type { FileExports, LoadArgument, Place, SaveArgument } from "./messages.ts";
import { tableSum } from "./place.ts";
import { read, readTable, validate } from "./reading.ts";
import { refusal } from "./refusal.ts";
import { survey, write } from "./writing.ts";

if (chunkBytes > 8 * maxResults) throw new RangeError("chunks of files must fit the room for results");

/**
 * Runs in a thread of the pool; `exports` are attached to the index in `memory`. Overwrites the thread's filter and
 * results.
 */
export function runFilePart(
  exports: EngineExports,
  memory: WebAssembly.Memory,
  step: FileStep,
  argument: FileArgument,
): unknown {
  const bytes = new Uint8Array(memory.buffer);
  const place: Place = { exports: exports as FileExports, bytes, bounce: exports.outKeysAt.value };
  return step === "save-part"
    ? savePart(place, argument as SaveArgument)
    : loadPart(place, argument as LoadArgument);
}

function savePart(place: Place, argument: SaveArgument): unknown {
  switch (argument.what) {
    case "survey":
      return survey(place, argument);
    case "write":
      return write(place, argument);
    case "sum":
      return tableSum(place, argument.table);
  }
}

function loadPart(place: Place, argument: LoadArgument): unknown {
  try {
    switch (argument.what) {
      case "table":
        return readTable(place, argument);
      case "read":
        return read(place, argument);
      case "validate":
        return validate(place, argument);
    }
  } catch (error) {
    // The bytes are a stranger's: a trap is their fault, and ends nothing but this load.
    if (error instanceof WebAssembly.RuntimeError)
      throw refusal("inconsistent", `the sandbox trapped: ${error.message}`);
    throw error;
  }
}
