/** A small fast generator (sfc32) whose stream is fixed by the numbers it is made of. */
export interface RandomStream {
  /** In (0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
}

/** Spreads an integer over 32 bits (the finaliser of MurmurHash3, published to the public domain). */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

const warmUpRounds = 12;
const goldenGamma = 0x9e3779b9;

export function randomStream(...keys: readonly number[]): RandomStream {
  let h = 0;
  for (const key of keys) {
    h = mix(h + goldenGamma + (key | 0));
    h = mix(h + goldenGamma + Math.floor(key / 2 ** 32));
  }
  let a = mix(h + 1);
  let b = mix(h + 2);
  let c = mix(h ^ goldenGamma);
  let counter = 1;
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let round = 0; round < warmUpRounds; round++) next();
  const uniform = () => (next() + 0.5) / 2 ** 32;
  let spare = Number.NaN;
  return {
    uniform,
    normal() {
      if (!Number.isNaN(spare)) {
        const kept = spare;
        spare = Number.NaN;
        return kept;
      }
      const radius = Math.sqrt(-2 * Math.log(uniform()));
      const angle = 2 * Math.PI * uniform();
      spare = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    },
  };
}

/** Gamma(shape, 1) by the method of Marsaglia and Tsang; shapes below 1 through Gamma(shape + 1). */
function gamma(random: RandomStream, shape: number): number {
  if (shape < 1) return gamma(random, shape + 1) * random.uniform() ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = random.normal();
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(random.uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

/** Beta with the given mean and variance; the mean itself where the variance is 0. */
export function betaSampler(mean: number, variance: number): (random: RandomStream) => number {
  if (variance <= 0) return () => mean;
  const concentration = (mean * (1 - mean)) / variance - 1;
  if (!(concentration > 0))
    throw new RangeError(`no Beta distribution of mean ${mean} has variance ${variance}`);
  return (random) => {
    const x = gamma(random, mean * concentration);
    return x / (x + gamma(random, (1 - mean) * concentration));
  };
}
