import { randomStream } from "./random.ts";

export interface CosineStats {
  pairs: number;
  mean: number;
  std: number;
  max: number;
}

/** Share of same-person pairs at or above the threshold that lets `falseAccept` of the different-person pairs pass. */
export interface AcceptPoint {
  falseAccept: number;
  threshold: number;
  trueAccept: number;
}

const defaultFalseAcceptRates = [1e-2, 1e-3, 1e-4, 1e-5];

/**
 * Cosines of same-person and different-person pairs among unit vectors (identities.length × dim). A person gives at
 * most `pairsPerPerson` pairs (default 6: rows i and i+d for growing d), so that nobody with hundreds of images rules;
 * `impostorPairs` (default 200,000) random pairs of different persons, the same on every run. A threshold is a quantile
 * of the impostors' tail: it takes some 10 / falseAccept pairs to be worth reading; rates can be given instead of 1e-2..1e-5.
 */
export function cosineStats(
  data: { dim: number; vectors: Float32Array; identities: readonly (string | number)[] },
  options: { pairsPerPerson?: number; impostorPairs?: number; falseAcceptRates?: readonly number[] } = {},
): { genuine: CosineStats; impostor: CosineStats; accept: AcceptPoint[] } {
  const { dim, vectors, identities } = data;
  const { pairsPerPerson = 6, impostorPairs = 200_000, falseAcceptRates = defaultFalseAcceptRates } = options;
  const cosine = (a: number, b: number) => {
    let sum = 0;
    for (let k = 0; k < dim; k++) sum += (vectors[a * dim + k] ?? 0) * (vectors[b * dim + k] ?? 0);
    return sum;
  };
  const rowsOf = Map.groupBy(identities.keys(), (row) => identities[row]);
  const genuine: number[] = [];
  for (const rows of rowsOf.values()) {
    let taken = 0;
    for (let gap = 1; gap < rows.length; gap++)
      for (let i = 0; i + gap < rows.length && taken < pairsPerPerson; i++, taken++)
        genuine.push(cosine(rows[i] ?? 0, rows[i + gap] ?? 0));
  }
  const impostor: number[] = [];
  const random = randomStream(identities.length, dim);
  const pick = () => Math.floor(random.uniform() * identities.length);
  while (rowsOf.size > 1 && impostor.length < impostorPairs) {
    const [a, b] = [pick(), pick()];
    if (identities[a] !== identities[b]) impostor.push(cosine(a, b));
  }
  const descending = Float64Array.from(impostor).sort().reverse();
  const accept = falseAcceptRates.map((falseAccept) => {
    const threshold = descending[Math.floor(falseAccept * descending.length)] ?? 1;
    const accepted = genuine.filter((value) => value > threshold).length;
    return { falseAccept, threshold, trueAccept: accepted / genuine.length };
  });
  return { genuine: summarise(genuine), impostor: summarise(impostor), accept };
}

function summarise(values: readonly number[]): CosineStats {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  const max = values.reduce((largest, value) => Math.max(largest, value), -1);
  return { pairs: values.length, mean, std: Math.sqrt(variance), max };
}
