import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeDescriptor,
  decodeDescriptorInto,
  descriptorHeaderBytes,
  encodeDescriptor,
  normalize,
} from "../src/descriptor.ts";
import { limits } from "../src/limits.ts";

const finite = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1, max: 1 });

test("a descriptor survives the wire to the bit, at any place in its buffer", () => {
  fc.assert(
    fc.property(
      fc.array(finite, { minLength: limits.minDim, maxLength: 64 }),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      fc.integer({ min: 0, max: 7 }),
      (numbers, version, shift) => {
        const vector = Float32Array.from(numbers);
        const wire = encodeDescriptor(vector, version);
        const moved = Buffer.concat([Buffer.alloc(shift), wire]).subarray(shift);
        const decoded = decodeDescriptor(moved);
        expect(decoded.descriptorVersion).toBe(version);
        expect(Buffer.from(decoded.vector.buffer)).toEqual(Buffer.from(vector.buffer));
      },
    ),
  );
});

test("the header is dp, two zero bytes and the version in little-endian", () => {
  const wire = encodeDescriptor(new Float32Array(8).fill(0.5), 0x01020304);
  expect([...wire.subarray(0, descriptorHeaderBytes)]).toEqual([0x64, 0x70, 0, 0, 4, 3, 2, 1]);
  expect(wire.readFloatLE(descriptorHeaderBytes)).toBe(0.5);
});

test("descriptors are put side by side, those of other dimensions left out", () => {
  const matrix = new Float32Array(16);
  const bytes = new Uint8Array(matrix.buffer);
  const wire = Buffer.concat([Buffer.alloc(1), encodeDescriptor(new Float32Array(8).fill(0.5), 7)]).subarray(
    1,
  );
  expect(decodeDescriptorInto({ bytes, dim: 8 }, 1, wire)).toEqual({ descriptorVersion: 7, dim: 8 });
  const other = encodeDescriptor(new Float32Array(9).fill(2), 7);
  expect(decodeDescriptorInto({ bytes, dim: 8 }, 0, other)).toEqual({ descriptorVersion: 7, dim: 9 });
  expect([...matrix]).toEqual([...Array(8).fill(0), ...Array(8).fill(0.5)]);
});

test("I11: anything else is refused, never read past its end", () => {
  const good = encodeDescriptor(new Float32Array(8).fill(0.1), 1);
  for (const bytes of [
    Buffer.alloc(0),
    good.subarray(0, 7),
    good.subarray(0, descriptorHeaderBytes),
    good.subarray(0, good.length - 1),
    Buffer.from(good).fill(0x65, 0, 1),
    encodeDescriptor(new Float32Array(limits.minDim - 1), 1),
    encodeDescriptor(new Float32Array(limits.maxDim + 1), 1),
  ]) {
    const refused = expect.objectContaining({ code: 26306 });
    expect(() => decodeDescriptor(bytes)).toThrow(refused);
    expect(() => decodeDescriptorInto({ bytes: new Uint8Array(64), dim: 8 }, 1, bytes)).toThrow(refused);
  }
});

describe("normalize", () => {
  test("scales to unit norm, and leaves what is of unit norm as it is", () => {
    fc.assert(
      fc.property(fc.array(finite, { minLength: 8, maxLength: 64 }), (numbers) => {
        const vector = Float32Array.from(numbers);
        fc.pre(Math.hypot(...vector) > 1e-3);
        expect(normalize(vector, vector.length)).toBeUndefined();
        expect(Math.abs(Math.hypot(...vector) - 1)).toBeLessThan(1e-5);
        const once = vector.slice();
        normalize(vector, vector.length);
        expect(vector).toEqual(once);
      }),
    );
  });

  test("names what makes a vector unusable", () => {
    expect(normalize(new Float32Array(8).fill(1), 9)).toBe("wrong_length");
    expect(normalize(Float32Array.of(1, Number.NaN, 0, 0, 0, 0, 0, 0), 8)).toBe("not_finite");
    expect(normalize(Float32Array.of(1, Number.POSITIVE_INFINITY, 0, 0, 0, 0, 0, 0), 8)).toBe("not_finite");
    expect(normalize(new Float32Array(8), 8)).toBe("zero_norm");
  });
});
