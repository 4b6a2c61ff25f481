import { parseArgs } from "node:util";
import { defaults, type EngineName, engineNameSchema, LimError, limits } from "@lim/contracts";

export const partNames = ["build", "snapshot", "writers"] as const;
export type PartName = (typeof partNames)[number];

/** Nothing smaller tells anything: most of its time is the start of processes. */
const minFaces = 200;

export const help = `Usage: npm run bench:build -- [options]
Faces in Postgres to a published index through a real indexer, against the bare engine on the same vectors, in turn.

  --only PARTS          of ${partNames.join(",")} (default all)
                        build     descriptors/s as a ratio to the bare engine, time by phase, peak memory
                        snapshot  reading a list's snapshot against psql's COPY of the same rows
                        writers   single-row commits/s with a snapshot beside them and without
  --sizes N,N           faces in the lists (default 20000,100000); snapshot and writers use the largest
  --engines E,E         of ${engineNameSchema.options.join(",")} (default both)
  --rounds N            bare engine and indexer in turn, N times; figures are medians (default 3)
  --hnswlib-rounds N    the same for hnswlib, which inserts on one thread (default as --rounds)
  --bare-batch N        rows that the bare engine gets at once (default 20000; an indexer reads them as they come)
  --quick               2,000 and 5,000 faces, one round, short windows: shows that it works, its figures mean little
  --strict              exit code 1 where a goal is missed; without it only where something was not measured
  --dim N               (default ${defaults.descriptorDim})
  --m N                 (default ${defaults.m})
  --ef-construction N   (default ${defaults.efConstruction})
  --seed N              of the faces (default 1)
  --writers N,N         numbers of writers (default 1,8)
  --windows N           windows of each kind, in turn (default 5)
  --window-ms N         length of a window (default 4000)
  --snapshot-rounds N   snapshot and psql in turn (default 5)
  --psql PATH           the program to compare with (default: where the system has it)
  --limit-s N           time limit of one step (default 3600)
  --json PATH           where to write the figures (default reports/bench-build.json)`;

export interface Options {
  only: PartName[];
  /** Ascending. */
  sizes: number[];
  engines: EngineName[];
  rounds: Record<EngineName, number>;
  bareBatch: number;
  quick: boolean;
  strict: boolean;
  dim: number;
  m: number;
  efConstruction: number;
  seed: number;
  writers: number[];
  windows: number;
  windowMs: number;
  snapshotRounds: number;
  psql: string | undefined;
  limitMs: number;
  json: string;
}

const flags = {
  only: { type: "string", default: partNames.join(",") },
  sizes: { type: "string" },
  engines: { type: "string", default: engineNameSchema.options.join(",") },
  rounds: { type: "string" },
  "hnswlib-rounds": { type: "string" },
  "bare-batch": { type: "string", default: "20000" },
  quick: { type: "boolean", default: false },
  strict: { type: "boolean", default: false },
  dim: { type: "string", default: String(defaults.descriptorDim) },
  m: { type: "string", default: String(defaults.m) },
  "ef-construction": { type: "string", default: String(defaults.efConstruction) },
  seed: { type: "string", default: "1" },
  writers: { type: "string", default: "1,8" },
  windows: { type: "string" },
  "window-ms": { type: "string" },
  "snapshot-rounds": { type: "string" },
  psql: { type: "string" },
  "limit-s": { type: "string", default: "3600" },
  json: { type: "string", default: "reports/bench-build.json" },
  help: { type: "boolean", default: false },
} as const;

function wholeNumber(name: string, text: string, least = 1): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new LimError("bad_input", `--${name} must be a whole number from ${least} on, got "${text}"`);
}

function numbersOf(name: string, text: string, least?: number): number[] {
  const numbers = text.split(",").map((one) => wholeNumber(name, one.trim(), least));
  return [...new Set(numbers)].toSorted((a, b) => a - b);
}

function namesOf<T extends string>(flag: string, text: string, known: readonly T[]): T[] {
  const asked = text.split(",").map((name) => name.trim());
  const unknown = asked.filter((name) => !known.some((one) => one === name));
  if (unknown.length === 0) return known.filter((name) => asked.includes(name));
  throw new LimError("bad_input", `--${flag}: no ${unknown.join(", ")}; there are ${known.join(", ")}`);
}

/** Undefined where help was asked for. Throws `bad_input` for values that cannot be. */
export function readOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({ args, options: flags });
  if (values.help) return undefined;
  const { quick, strict } = values;
  const rounds = wholeNumber("rounds", values.rounds ?? (quick ? "1" : "3"));
  const dim = wholeNumber("dim", values.dim, limits.minDim);
  if (dim > limits.maxDim) throw new LimError("bad_input", `--dim is ${limits.maxDim} at most, got ${dim}`);
  return {
    only: namesOf("only", values.only, partNames),
    sizes: numbersOf("sizes", values.sizes ?? (quick ? "2000,5000" : "20000,100000"), minFaces),
    engines: namesOf("engines", values.engines, engineNameSchema.options),
    rounds: {
      hnsw: rounds,
      hnswlib: wholeNumber("hnswlib-rounds", values["hnswlib-rounds"] ?? String(rounds)),
    },
    bareBatch: wholeNumber("bare-batch", values["bare-batch"]),
    quick,
    strict,
    dim,
    m: wholeNumber("m", values.m),
    efConstruction: wholeNumber("ef-construction", values["ef-construction"]),
    seed: wholeNumber("seed", values.seed, 0),
    writers: numbersOf("writers", values.writers),
    windows: wholeNumber("windows", values.windows ?? (quick ? "2" : "5")),
    windowMs: wholeNumber("window-ms", values["window-ms"] ?? (quick ? "500" : "4000")),
    snapshotRounds: wholeNumber("snapshot-rounds", values["snapshot-rounds"] ?? (quick ? "2" : "5")),
    psql: values.psql,
    limitMs: wholeNumber("limit-s", values["limit-s"]) * 1_000,
    json: values.json,
  };
}
