import { createHash } from "node:crypto";
import { createLookAlikes, type FamilyLevel, likenessMoments } from "./look-alikes.ts";
import { betaSampler, type RandomStream, randomStream } from "./random.ts";
import { createRotation } from "./rotation.ts";

export interface FaceModelParams {
  dim: number;
  seed: number;
  /** In (1, dim]: the spread of impostors' cosines is about 1 / sqrt(effectiveDim). */
  effectiveDim: number;
  /** Mean and standard deviation of the cosine of two images of one person. */
  genuineMean: number;
  genuineStd: number;
  /** Nested families of look-alikes, the largest first; [] for people who are independent of each other. */
  lookAlikes: readonly FamilyLevel[];
}

/** Like a current 512-dim face recogniser: impostors 0.00 ± 0.055, the same person 0.65 ± 0.12 (see the README). */
export const defaultFaceModel: FaceModelParams = {
  dim: 512,
  seed: 1,
  effectiveDim: 330,
  genuineMean: 0.65,
  genuineStd: 0.12,
  lookAlikes: [
    { families: 6, share: 0.05 },
    { families: 12, share: 0.12 },
    { families: 24, share: 0.22 },
  ],
};

/** Like the 128-dim recogniser whose descriptors of Labeled Faces in the Wild were measured (see the README). */
export const lfwFaceModel: FaceModelParams = {
  dim: 128,
  seed: 1,
  effectiveDim: 96,
  genuineMean: 0.622,
  genuineStd: 0.135,
  lookAlikes: [
    { families: 6, share: 0.08 },
    { families: 12, share: 0.14 },
    { families: 24, share: 0.26 },
  ],
};

/** Deterministic synthetic descriptors: person p's image i is the same vector whenever asked for. */
export interface FaceGenerator {
  readonly params: FaceModelParams;
  /** Unit vector of one image of one person (integers ≥ 0). */
  vector(person: number, image: number): Float32Array;
  /** persons × imagesPerPerson rows (default 1) in person order; images count from 0. */
  matrix(options: { firstPerson: number; persons: number; imagesPerPerson?: number }): Float32Array;
}

/** Which random stream a number is drawn from. */
const streams = { centre: 1, image: 2, rotation: 3 } as const;

/**
 * A person is a unit vector c, the sum of directions shared with families of look-alikes (`createLookAlikes`) and of one
 * of their own, each weighted by the root of its share of the variance; an image of quality w is w·c + √(1−w²)·n with n a random unit vector orthogonal
 * to c. Two images of a person then have the cosine w₁w₂ + √(1−w₁²)√(1−w₂²)·(n₁·n₂), so mean and spread of w follow
 * from those of the genuine cosines (`qualityMoments`). The variances along the axes decay by a power law that gives
 * effectiveDim; a rotation then spreads them over all dimensions, as in a real descriptor. Parameters that are given
 * replace those of `defaultFaceModel`. Throws RangeError for parameters that no distribution can have.
 */
export function createFaceGenerator(params: Partial<FaceModelParams> = {}): FaceGenerator {
  const model: FaceModelParams = { ...defaultFaceModel, ...params };
  const { dim, seed } = model;
  checkParams(model);
  const carrying = carryingDim(model);
  const deviations = powerLawSpectrum(dim, carrying).map(Math.sqrt);
  const rotate = createRotation(dim, randomStream(seed, streams.rotation));
  const { mean, variance } = qualityMoments(model, carrying);
  const quality = betaSampler(mean, variance);
  const direction = (random: RandomStream, into: Float64Array) => {
    for (let k = 0; k < dim; k++) into[k] = random.normal() * (deviations[k] ?? 0);
    normalise(into);
  };
  const levels = model.lookAlikes;
  const lookAlikes = createLookAlikes({ levels, dim, seed: seed, direction });
  const ownWeight = Math.sqrt(1 - levels.reduce((sum, { share }) => sum + share, 0));
  const centre = new Float64Array(dim);
  let centreOf = -1;
  const row = new Float64Array(dim);

  const write = (person: number, image: number, into: Float32Array, offset: number) => {
    if (centreOf !== person) {
      direction(randomStream(seed, streams.centre, person), centre);
      scale(centre, ownWeight);
      lookAlikes.addTo(person, centre);
      normalise(centre);
      centreOf = person;
    }
    const random = randomStream(seed, streams.image, person, image);
    const w = quality(random);
    direction(random, row);
    addScaled(row, centre, -dot(row, centre));
    scale(row, Math.sqrt((1 - w * w) / dot(row, row)));
    addScaled(row, centre, w);
    rotate(row);
    normalise(row);
    into.set(row, offset);
  };
  return {
    params: model,
    vector(person, image) {
      const vector = new Float32Array(dim);
      write(person, image, vector, 0);
      return vector;
    },
    matrix({ firstPerson, persons, imagesPerPerson = 1 }) {
      const rows = new Float32Array(persons * imagesPerPerson * dim);
      for (let r = 0; r < persons * imagesPerPerson; r++)
        write(firstPerson + Math.floor(r / imagesPerPerson), r % imagesPerPerson, rows, r * dim);
      return rows;
    },
  };
}

function checkParams({ dim, effectiveDim, genuineMean, genuineStd, lookAlikes }: FaceModelParams): void {
  if (!Number.isInteger(dim) || dim < 2) throw new RangeError(`dim ${dim} is not an integer above 1`);
  if (!(effectiveDim > 1 && effectiveDim <= dim))
    throw new RangeError(`effectiveDim ${effectiveDim} is not in (1, ${dim}]`);
  if (!(genuineMean > 0 && genuineMean < 1))
    throw new RangeError(`genuineMean ${genuineMean} is not in (0, 1)`);
  if (!(genuineStd >= 0)) throw new RangeError(`genuineStd ${genuineStd} is negative`);
  const shared = lookAlikes.reduce((sum, { share }) => sum + share, 0);
  const possible = lookAlikes.every(
    ({ families, share }) => Number.isInteger(families) && families > 0 && share >= 0,
  );
  if (!possible || shared >= 1)
    throw new RangeError("lookAlikes needs whole numbers of families and shares that sum to less than 1");
}

/**
 * Over how many dimensions random directions spread, so that with the likeness of families, which images show in the
 * proportion genuineMean, the cosines of different persons have the variance 1 / effectiveDim; dim at most.
 */
function carryingDim({ dim, effectiveDim, genuineMean, lookAlikes }: FaceModelParams): number {
  const { mean, meanSquare } = likenessMoments(lookAlikes);
  const left = 1 / effectiveDim - genuineMean ** 2 * (meanSquare - mean ** 2);
  return left * dim > 1 ? 1 / left : dim;
}

/**
 * Mean and variance of the quality w. With m = E[w], M = E[w²] and e = `carryingDim` the cosine of two images has mean
 * m² and second moment M² + (1−M)²/e; the latter is solved for M.
 */
function qualityMoments(model: FaceModelParams, e: number): { mean: number; variance: number } {
  const { genuineMean, genuineStd } = model;
  const second = genuineStd ** 2 + genuineMean ** 2;
  const a = 1 + 1 / e;
  const root = Math.sqrt(1 / e ** 2 - a * (1 / e - second));
  const meanSquare = (1 / e + root) / a;
  // Below the noise of n₁·n₂ itself no spread of w is left to choose.
  return { mean: Math.sqrt(genuineMean), variance: Math.max(0, meanSquare - genuineMean) };
}

/** Variances (k+1)^−α whose (Σλ)² / Σλ² is effectiveDim. */
function powerLawSpectrum(dim: number, effectiveDim: number): Float64Array {
  const spectrum = (alpha: number) => Float64Array.from({ length: dim }, (_, k) => (k + 1) ** -alpha);
  const carried = (values: Float64Array) => {
    let sum = 0;
    for (const value of values) sum += value;
    return sum ** 2 / dot(values, values);
  };
  let low = 0;
  let high = 64;
  const bisections = 60;
  for (let step = 0; step < bisections; step++) {
    const middle = (low + high) / 2;
    if (carried(spectrum(middle)) > effectiveDim) low = middle;
    else high = middle;
  }
  return spectrum(low);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += (a[k] ?? 0) * (b[k] ?? 0);
  return sum;
}

function normalise(a: Float64Array): void {
  scale(a, 1 / Math.sqrt(dot(a, a)));
}

function scale(a: Float64Array, factor: number): void {
  for (let k = 0; k < a.length; k++) a[k] = (a[k] ?? 0) * factor;
}

function addScaled(a: Float64Array, b: Float64Array, factor: number): void {
  for (let k = 0; k < a.length; k++) a[k] = (a[k] ?? 0) + (b[k] ?? 0) * factor;
}

/** Stable face id (a UUID, version 8) of a person and an image under a name space. */
export function faceIdOf(space: string, person: number, image = 0): string {
  const bytes = createHash("sha256")
    .update(JSON.stringify([space, person, image]))
    .digest()
    .subarray(0, 16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
