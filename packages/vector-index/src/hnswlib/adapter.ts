import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { endianness } from "node:os";
import { dirname, join } from "node:path";
import { LimError } from "@lim/contracts";
import type { EngineAdapter } from "../port.ts";
import { assertShape, estimateBytes, HnswlibIndex } from "./hnswlib-index.ts";

const defaultSeed = 100;

function installedVersion(): string {
  try {
    const require = createRequire(import.meta.url);
    const manifest = join(dirname(require.resolve("hnswlib-node")), "..", "package.json");
    return (JSON.parse(readFileSync(manifest, "utf8")) as { version: string }).version;
  } catch (cause) {
    throw new LimError("engine_failed", "hnswlib-node is not installed (npm install hnswlib-node)", {
      cause,
    });
  }
}

/** Loads the native module in a thread once, to fail here and with a remedy where it was not built. */
export async function loadHnswlib(): Promise<EngineAdapter> {
  if (endianness() !== "LE" || !/64/.test(process.arch))
    throw new LimError("engine_failed", "hnswlib needs a 64-bit little-endian machine");
  const version = installedVersion();
  const adapter = createAdapter(version);
  try {
    await (await adapter.create({ dim: 8, capacity: 1, params: { m: 2, efConstruction: 10 } })).close();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LimError("engine_failed", `hnswlib-node does not load (npm rebuild hnswlib-node): ${reason}`, {
      cause,
    });
  }
  return adapter;
}

function createAdapter(version: string): EngineAdapter {
  return {
    name: "hnswlib",
    version,
    readsVectors: false,
    async create({ dim, capacity, params, signal }) {
      assertShape(dim, params);
      if (!Number.isInteger(capacity) || capacity < 0 || capacity >= 2 ** 31)
        throw new LimError("bad_input", `capacity must be an integer from 0 to 2^31 - 1, got ${capacity}`);
      const { m, efConstruction, seed = defaultSeed } = params;
      return HnswlibIndex.start(
        version,
        dim,
        m,
        { op: "create", dim, capacity: Math.max(capacity, 1), m, efConstruction, seed },
        signal,
      );
    },
    async load({ files, dim, slots, removed, params, signal }) {
      assertShape(dim, params);
      const { m } = params;
      const path = files.index;
      return HnswlibIndex.start(version, dim, m, { op: "load", path, dim, slots, removed, m }, signal);
    },
    estimateMemoryBytes({ dim, capacity, params }) {
      assertShape(dim, params);
      return estimateBytes(dim, capacity, params.m);
    },
  };
}
