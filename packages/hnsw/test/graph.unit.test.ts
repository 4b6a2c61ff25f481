// The engine driven directly: what a walk or a scan must not trip over.
import { beforeAll, describe, expect, test } from "vitest";
import { addressOf, type Metric, segmentSlots } from "../src/layout.ts";
import { compileTesting, type Engine, openEngine } from "./direct.ts";
import { exactFaultOf, type Hit, prepared } from "./oracle.ts";
import { clustered } from "./support.ts";

let module: WebAssembly.Module;
beforeAll(() => {
  module = compileTesting();
}, 60_000);

const dim = 64;
const metrics: Metric[] = ["cosine", "ip", "l2"];

function hits({ exports, memory, floats }: Engine, count: number): Hit[] {
  const keys = new Uint32Array(memory.buffer, exports.outKeysAt.value, count);
  const scores = floats(exports.outScoresAt.value, count);
  return Array.from(keys, (key, i) => ({ key, score: scores[i] as number }));
}

function filled(metric: Metric, count: number): { engine: Engine; rows: Map<number, Float32Array> } {
  const engine = openEngine(module, { dim, metric, efConstruction: 40 }, 2 * segmentSlots);
  const all = clustered(count, dim, 5);
  const rows = new Map<number, Float32Array>();
  for (let i = 0; i < count; i++) {
    const row = all.slice(i * dim, (i + 1) * dim);
    engine.add(i, i, row);
    rows.set(i, prepared(metric, row));
  }
  return { engine, rows };
}

describe.each(metrics)("%s", (metric) => {
  // A memory that another index used holds anything behind the slots in use.
  test.each([1, 2, 3, 4, 63, 250])("a scan of %i slots finds all, whatever lies behind them", (count) => {
    const { engine, rows } = filled(metric, count);
    const { exports, layout, memory, writeQuery } = engine;
    const query = clustered(1, dim, 77);
    const scales = (slot: number) => new Uint32Array(memory.buffer, addressOf(layout, "scale", slot, 4), 1);
    for (const garbage of [0xffc0_0000, 0x7fc0_0000, 0xff80_0000, 0x7f80_0000, 0xffff_ffff, 0x8000_0000]) {
      for (let slot = count; slot < count + 4; slot++) scales(slot)[0] = garbage;
      for (const k of [1, 10, 300]) {
        writeQuery(0, query);
        const n = exports.scan(0, k, 300, count, 0, false);
        expect(exactFaultOf(metric, hits(engine, n), query, rows, k)).toBeUndefined();
        writeQuery(0, query);
        const m = exports.scanRows(0, k, count, 0, false);
        expect(exactFaultOf(metric, hits(engine, m), query, rows, k)).toBeUndefined();
      }
    }
  });

  test("a scan without re-rank in depth still finds the nearest by 8 bits", () => {
    const { engine, rows } = filled(metric, 500);
    const { exports, writeQuery } = engine;
    const query = clustered(1, dim, 78);
    // Ranked by 8 bits and read by full precision: ten times k are enough for any rounding.
    for (const k of [1, 3, 10]) {
      writeQuery(0, query);
      const n = exports.scan(0, k, 10 * k, 500, 0, false);
      expect(exactFaultOf(metric, hits(engine, n), query, rows, k)).toBeUndefined();
    }
  });
});
