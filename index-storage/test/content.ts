import { defaults, type EngineName, writeUuid } from "@lim/contracts";
import { createKeyedIndex, type KeyedIndex, loadEngine } from "@lim/vector-index";
import type { StagedContent } from "../src/index.ts";

export const dim = 16;
export const params = { m: 8, efConstruction: 60 };
export const historyId = "0a0a0a0a-0000-4000-8000-00000000000a";

export function idOf(n: number): string {
  return `${n.toString(16).padStart(8, "0")}-0000-4000-8000-${(n + 1).toString(16).padStart(12, "0")}`;
}

/** The same unit vectors at every run and on every machine: sums and products of small integers, then one division. */
export function vectors(n: number, seed = 1): Float32Array {
  const out = new Float32Array(n * dim);
  let state = seed;
  for (let row = 0; row < n; row++) {
    let sum = 0;
    for (let d = row * dim; d < (row + 1) * dim; d++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      const value = ((state >>> 8) % 2001) - 1000;
      out[d] = value;
      sum += value * value;
    }
    for (let d = row * dim; d < (row + 1) * dim; d++) out[d] = (out[d] ?? 0) / Math.sqrt(sum);
  }
  return out;
}

export async function build(n: number, seed = 1, engine: EngineName = defaults.engine): Promise<KeyedIndex> {
  const adapter = await loadEngine(engine);
  const keyed = createKeyedIndex(await adapter.create({ dim, capacity: n, params }));
  const ids = new Uint8Array(n * 16);
  for (let i = 0; i < n; i++) writeUuid(idOf(i), ids, i * 16);
  if (n > 0) await keyed.addNew(ids, vectors(n, seed), { threads: 1 });
  return keyed;
}

export function contentOf(label: string, revision = 1, engine: EngineName = defaults.engine): StagedContent {
  return {
    label,
    historyId,
    descriptorVersion: 1,
    revision,
    engine,
    params,
    mode: "rebuild",
    removedSinceRebuild: 0,
    skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
  };
}
