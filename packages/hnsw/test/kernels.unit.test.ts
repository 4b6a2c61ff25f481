// The engine's arithmetic against a scalar reference, bit for bit.
import { beforeAll, describe, expect, test } from "vitest";
import { addressOf, type Metric } from "../src/layout.ts";
import { fromHalf } from "../src/rows.ts";
import { compileTesting, type Engine, openEngine } from "./direct.ts";
import { dotFloat32, normaliseFloat32, squaredFloat32 } from "./oracle.ts";
import { randomFrom } from "./support.ts";

const { fround } = Math;
const seed = 20260;
let module: WebAssembly.Module;
beforeAll(() => {
  console.log(`kernels: seed ${seed}`);
  module = compileTesting();
}, 60_000);

/** Halves are rounded to the even one, as IEEE 754 wants it. */
function roundEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

interface Quantised {
  bytes: Int8Array;
  scale: number;
  /** Squared norm, under l2. */
  bias: number;
}

function quantised(row: Float32Array, metric: Metric): Quantised {
  const largest = row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const used = largest === 0 ? 1 : Math.max(largest, fround(1e-36));
  const factor = fround(127 / used);
  return {
    bytes: Int8Array.from(row, (x) => roundEven(fround(x * factor))),
    scale: fround(used / 127),
    bias: metric === "l2" ? dotFloat32(row, row) : 0,
  };
}

/** Up to this many dimensions the walk goes by all 8 bits. */
const wholeWalkDim = 192;

/** The slot's numbers as neighbours are chosen by them: where the walk is coarse, with their lower halves at the middle. */
const walkBytes = ({ bytes }: Quantised): Int8Array =>
  bytes.length <= wholeWalkDim ? bytes : bytes.map((b) => (((b + 128) & 0xf0) | 8) - 128);

function planeSums(slot: Quantised, query: Int8Array): { coarse: number; fine: number; sum: number } {
  let coarse = 0;
  let fine = 0;
  let sum = 0;
  query.forEach((q, i) => {
    const u = (slot.bytes[i] as number) + 128;
    coarse += (u >> 4) * q;
    fine += (u & 15) * q;
    sum += q;
  });
  return { coarse, fine, sum };
}

function distance(dot: number, slot: Quantised, query: Omit<Quantised, "bytes">, metric: Metric): number {
  const d = -fround(fround(dot * slot.scale) * query.scale);
  return metric === "l2" ? fround(fround(fround(d + d) + slot.bias) + query.bias) : d;
}
function walkDistance(slot: Quantised, query: Quantised, metric: Metric): number {
  if (query.bytes.length <= wholeWalkDim) return fineDistance(slot, query, metric);
  const { coarse, sum } = planeSums(slot, query.bytes);
  return distance(fround(fround(coarse * 16) - fround(fround(sum) * 120.5)), slot, query, metric);
}
function fineDistance(slot: Quantised, query: Quantised, metric: Metric): number {
  const { coarse, fine, sum } = planeSums(slot, query.bytes);
  return distance(fround(fround(coarse * 16 + fine) - fround(sum * 128)), slot, query, metric);
}

/** Bits whose unsigned order is that of the numbers. */
function orderedBits(x: number): number {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0] as number;
  return (bits & 0x80000000 ? ~bits : bits | 0x80000000) >>> 0;
}

/** Rows that reach the ends of every sum, and random ones. */
function rows(dim: number, random: () => number): Float32Array[] {
  const fill = (at: (i: number) => number) => Float32Array.from({ length: dim }, (_, i) => at(i));
  return [
    fill(() => 1),
    fill(() => -1),
    fill((i) => (i % 2 === 0 ? 1 : -1)),
    fill((i) => (i % 32 < 16 ? 1 : -1)),
    fill((i) => (i === 0 ? 1 : 0)),
    fill((i) => (i === dim - 1 ? -3 : 1e-3)),
    fill((i) => (i % 128) - 63.5),
    fill((i) => ((i * 37) % 255) - 127),
    fill((i) => 1e12 * Math.sin(i + 1)),
    fill((i) => 1e-12 * Math.cos(i + 1)),
    ...Array.from({ length: 14 }, () => fill(() => (random() - 0.5) * 2)),
    ...Array.from({ length: 8 }, () => {
      const size = 10 ** (6 * random() - 3);
      return fill(() => size * (random() + random() + random() - 1.5));
    }),
  ];
}

const dims = [64, 128, 192, 512, 1024, 4096];
const metrics: Metric[] = ["cosine", "ip", "l2"];

describe("vectors in 8 bits", () => {
  for (const metric of metrics)
    test.each(dims)(`${metric}, %i dimensions`, (dim) => {
      const all = rows(dim, randomFrom(seed + dim));
      const engine = openEngine(module, { dim, metric });
      const { exports } = engine;
      const slots = all.map((row) => (metric === "cosine" ? normaliseFloat32(row) : row));
      all.forEach((row, slot) => {
        engine.add(slot, slot + 100, row, all.length);
      });
      const held = slots.map((row) => quantised(row, metric));
      held.forEach((one, slot) => {
        expectHeld(engine, slot, one, slots[slot] as Float32Array, metric);
      });
      const query8 = exports.query8At.value;
      held.slice(0, 16).forEach((query, number) => {
        engine.bytes(query8, dim).set(new Uint8Array(query.bytes.buffer));
        exports.useQuery(query8, query.scale, query.bias);
        const walked = held.map((slot) => walkDistance(slot, query, metric));
        held.forEach((slot, i) => {
          expect(exports.walkTo(i, query8), `walk ${number} ${i}`).toBe(walked[i]);
          expect(exports.fineTo(i, query8), `fine ${number} ${i}`).toBe(fineDistance(slot, query, metric));
        });
        expectFours(engine, query8, walked, randomFrom(number));
        expectMargin(engine, query8, held, query, metric);
      });
    });

  test("a slot's numbers as the query", () => {
    for (const metric of metrics)
      for (const dim of [64, 320]) {
        const all = rows(dim, randomFrom(seed));
        const engine = openEngine(module, { dim, metric });
        all.forEach((row, slot) => {
          engine.add(slot, slot, row, all.length);
        });
        const held = all.map((row) => quantised(metric === "cosine" ? normaliseFloat32(row) : row, metric));
        const at = engine.exports.other8At.value;
        held.forEach((one, slot) => {
          engine.exports.useSlot(slot, at);
          const bytes = walkBytes(one);
          expect(new Int8Array(engine.bytes(at, dim).slice().buffer)).toEqual(bytes);
          held.forEach((other, i) => {
            expect(engine.exports.walkTo(i, at)).toBe(walkDistance(other, { ...one, bytes }, metric));
          });
        });
      }
  });

  test("tiny and zero components, and numbers in the middle between two steps", () => {
    const dim = 64;
    const { exports, writeQuery, bytes } = openEngine(module, { dim });
    const into = exports.query8At.value;
    const cases: ((i: number) => number)[] = [
      () => 0,
      (i) => (i === 3 ? 1e-45 : 0),
      (i) => (i % 2 === 0 ? 1e-40 : -1e-40),
      (i) => 3e-38 * Math.sin(i),
      (i) => 2e-36 * Math.sin(i),
      (i) => (i === 0 ? 127 : i - 32.5),
      (i) => (i === 0 ? -3e38 : 1e38 * Math.sin(i)),
    ];
    for (const at of cases) {
      const row = Float32Array.from({ length: dim }, (_, i) => at(i));
      const wanted = quantised(row, "ip");
      expect(exports.quantise(writeQuery(0, row), into)).toBe(wanted.scale);
      expect(new Int8Array(bytes(into, dim).slice().buffer)).toEqual(wanted.bytes);
    }
  });
});

function expectHeld(engine: Engine, slot: number, wanted: Quantised, row: Float32Array, metric: Metric) {
  const { layout, bytes, floats } = engine;
  const { dim } = layout;
  const coarse = bytes(addressOf(layout, "coarse", slot, dim / 2), dim / 2);
  const fine = bytes(addressOf(layout, "fine", slot, dim / 2), dim / 2);
  const held = Int8Array.from({ length: dim }, (_, i) => {
    const at = (i >> 5) * 16 + (i & 15);
    const half = (plane: Uint8Array) => ((plane[at] as number) >> (i & 16 ? 4 : 0)) & 15;
    return half(coarse) * 16 + half(fine) - 128;
  });
  expect(held).toEqual(wanted.bytes);
  expect(floats(addressOf(layout, "scale", slot, 4), 1)[0]).toBe(wanted.scale);
  if (metric === "l2") expect(floats(addressOf(layout, "bias", slot, 4), 1)[0]).toBe(wanted.bias);
  expect(floats(addressOf(layout, "row", slot, 4 * dim), dim)).toEqual(row);
}

/** Batches of four in any mixture of slots, also the same four times. */
function expectFours({ exports, memory }: Engine, query: number, walked: number[], random: () => number) {
  const batch = new Uint32Array(memory.buffer, exports.batchAt.value, 4);
  const ordered = new Uint32Array(memory.buffer, exports.distancesAt.value, 4);
  for (let round = 0; round < 12; round++) {
    const slots = [0, 1, 2, 3].map((i) => (round === 0 ? i : Math.floor(random() * walked.length)));
    if (round === 1) slots.fill(5);
    batch.set(slots);
    const wanted = slots.map((slot) => orderedBits(walked[slot] as number));
    const bounds = [0, 0xffff_ffff, ...wanted, ...wanted.map((bits) => bits - 1)];
    for (const bound of bounds) {
      const mask = exports.walkFour(exports.batchAt.value, query, bound);
      expect([...ordered]).toEqual(wanted);
      expect(mask).toBe(wanted.reduce((bits, one, i) => bits | (one <= bound ? 1 << i : 0), 0));
    }
  }
}

/** The scan drops a slot by its distance in the walk: what it allows for must cover the difference to all 8 bits. */
function expectMargin(
  { exports }: Engine,
  query8: number,
  held: Quantised[],
  query: Quantised,
  metric: Metric,
) {
  const margin = exports.walkMargin(query8);
  for (const slot of held) {
    const off = Math.abs(walkDistance(slot, query, metric) - fineDistance(slot, query, metric));
    expect(off).toBeLessThanOrEqual(margin * slot.scale);
  }
}

describe("float32", () => {
  test.each(dims)("dot product and squared distance of %i components", (dim) => {
    const { exports, writeQuery } = openEngine(module, { dim });
    const all = rows(dim, randomFrom(seed - dim));
    for (const a of all)
      for (const b of all.slice(0, 12)) {
        const at = writeQuery(0, a);
        const other = writeQuery(1, b);
        expect(exports.dotFloat32(at, other, dim)).toBe(dotFloat32(a, b));
        expect(exports.squaredFloat32(at, other, dim)).toBe(squaredFloat32(a, b));
      }
  });

  test("norm 1", () => {
    const dim = 128;
    const { exports, writeQuery, floats } = openEngine(module, { dim });
    for (const row of [...rows(dim, randomFrom(seed)), new Float32Array(dim)]) {
      const at = writeQuery(0, row);
      exports.normaliseRow(at);
      expect(floats(at, dim)).toEqual(normaliseFloat32(row));
    }
  });

  test("keys are ordered as the distances, and give them back", () => {
    const { exports } = openEngine(module, { dim: 64 });
    const random = randomFrom(seed);
    const positive = [0, 1e-45, 1e-40, 1.17e-38, 1e-3, 1, 2, 65504, 1e30, 3.4e38, Number.POSITIVE_INFINITY];
    const all = [
      ...positive,
      ...positive.map((x) => -x),
      ...Array.from({ length: 500 }, () => random() - 0.5),
    ]
      .map(fround)
      .sort((a, b) => a - b || (Object.is(a, -0) ? -1 : 1));
    let before = -1;
    for (const x of all) {
      const bits = exports.orderedBits(x) >>> 0;
      expect(bits).toBe(orderedBits(x));
      expect(bits).toBeGreaterThanOrEqual(before);
      before = bits;
      expect(Object.is(exports.throughKey(x, 0xffff_ffff), x)).toBe(true);
      expect(exports.slotThroughKey(x, 0xdead_beef) >>> 0).toBe(0xdead_beef);
    }
    expect(new Set(all.map((x) => exports.orderedBits(x))).size).toBe(new Set(all.map(String)).size + 1);
  });
});

describe("float16", () => {
  const count = 4096;
  const halfOf = (x: number) => {
    const view = new DataView(new ArrayBuffer(2));
    view.setFloat16(0, Math.max(-65504, Math.min(65504, x)));
    return view.getUint16(0);
  };
  const floatOf = (half: number) => {
    const view = new DataView(new ArrayBuffer(2));
    view.setUint16(0, half);
    return view.getFloat16(0);
  };

  /** Through the engine, 4,096 at a time. */
  function narrowed({ exports, writeQuery, memory }: Engine, values: Float32Array): Uint16Array {
    const all = new Uint16Array(values.length);
    const into = exports.rowScratchAt.value;
    for (let from = 0; from < values.length; from += count) {
      exports.narrowRow(writeQuery(0, values.subarray(from, from + count)), into, count);
      const part = new Uint16Array(memory.buffer, into, Math.min(count, values.length - from));
      all.set(part, from);
    }
    return all;
  }

  test("all finite halves are widened, and narrowed to themselves", () => {
    const engine = openEngine(module, { dim: count });
    const { exports, memory, floats } = engine;
    const halves = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const at = exports.queriesAt.value;
    const into = exports.rowScratchAt.value;
    for (let from = 0; from < halves.length; from += count) {
      new Uint16Array(memory.buffer, at, count).set(halves.subarray(from, from + count));
      exports.widenRow(at, into, count);
      const wide = floats(into, count).slice();
      wide.forEach((x, i) => {
        const half = from + i;
        if ((half & 0x7c00) === 0x7c00) return;
        if (!Object.is(x, floatOf(half))) throw new Error(`half ${half} becomes ${x}, not ${floatOf(half)}`);
        if (!Object.is(x, fromHalf(half))) throw new Error(`half ${half} is ${fromHalf(half)} outside`);
      });
    }
    const finite = halves.filter((half) => (half & 0x7c00) !== 0x7c00);
    expect(narrowed(engine, Float32Array.from(finite, floatOf))).toEqual(finite);
  });

  test("narrowing rounds to the nearest, to the even of two", () => {
    const engine = openEngine(module, { dim: count });
    const values: number[] = [];
    // Between any two neighbours: the middle, and the next float32 on each side of it.
    for (let half = 0; half < 0x7bff; half++) {
      const middle = (floatOf(half) + floatOf(half + 1)) / 2;
      const bits = new Uint32Array(Float32Array.of(middle).buffer)[0] as number;
      for (const near of [bits - 1, bits, bits + 1]) {
        const x = new Float32Array(Uint32Array.of(near).buffer)[0] as number;
        values.push(x, -x);
      }
    }
    const random = randomFrom(seed);
    for (let i = 0; i < 50_000; i++)
      values.push(new Float32Array(Uint32Array.of(random() * 2 ** 32).buffer)[0] as number);
    values.push(65503, 65504, 65519.99, 65520, 1e10, 3.4e38, -7e4, 0, -0, 1e-45, -1e-45, 2 ** -25, 2 ** -24);
    const floats = Float32Array.from(values.filter(Number.isFinite));
    const found = narrowed(engine, floats);
    floats.forEach((x, i) => {
      if (found[i] !== halfOf(x)) throw new Error(`${x} becomes ${found[i]}, not ${halfOf(x)}`);
    });
    expect(floats.length).toBeGreaterThan(200_000);
  });
});

describe("levels", () => {
  test.each([4, 8, 16, 32, 100])("m = %i: one slot of each group, anywhere in it", (m) => {
    for (const levelSeed of [0, 1, 77, 0xffff_ffff]) {
      const { exports, layout } = openEngine(module, { dim: 64, m, seed: levelSeed });
      const group = 2 ** layout.groupBits;
      const slots = 4096 * 8;
      const levels = Uint8Array.from({ length: slots }, (_, slot) => exports.levelOf(slot));
      for (let level = 1; level <= layout.levels && group ** level <= slots; level++) {
        const size = group ** level;
        const places = new Uint32Array(group);
        for (let from = 0; from < slots; from += size) {
          const members = Array.from({ length: size }, (_, i) => from + i).filter(
            (slot) => (levels[slot] as number) >= level,
          );
          expect(members.length).toBe(1);
          const child = Math.floor(((members[0] as number) - from) / (size / group));
          places[child] = (places[child] as number) + 1;
        }
        // The chosen one is any of its group: no place is taken much more often than another.
        const groups = slots / size;
        if (groups < 20 * group) continue;
        const spread = 6 * Math.sqrt(groups / group);
        for (const often of places) expect(Math.abs(often - groups / group)).toBeLessThan(spread);
      }
    }
  });
});
