import { tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { defaults, LimError } from "@lim/contracts";

export const partNames = ["build", "search", "rows", "writer", "load", "drops", "churn"] as const;
export type PartName = (typeof partNames)[number];

export const help = `Usage: npm run bench:engine -- [options]
hnswlib-node as installed against @lim/hnsw, in turn, in one run; each engine in a process of its own.

  --only PARTS          of ${partNames.join(",")} (default all)
                        build   rows/s of one thread, of two; resident memory
                        search  recall against throughput, one thread and two; latency of single queries
                        rows    bytes per vector and throughput by where the re-rank's rows are held
                        writer  latency of searches beside a writer at full speed
                        load    saving, and loading with every check, files warm
                        drops   resident memory over twenty loads and drops
                        churn   recall, memory and speed while 200 % of the content is replaced
  --sizes N,N           synthetic faces in the index (default 50000,200000)
  --small N             where the slope of memory begins (default 20000)
  --churn-size N        faces in the churned index (default 20000)
  --real yes|no         also real descriptors, where LIM_TEST_DATA has them (default yes)
  --quick               5,000 and 20,000 faces, short times: shows that it works, its figures mean little
  --dim N               dimension of synthetic faces (default ${defaults.descriptorDim})
  --m N                 links of a node (default ${defaults.m})
  --ef-construction N   candidates of an insertion (default ${defaults.efConstruction})
  --seed N              of faces and indexes (default 1)
  --rounds N            engines in alternation, N times; figures are medians of rounds (default 3)
  --build-rounds N      the same for builds, which take minutes (default 1)
  --point-ms N          time of one point of a curve (default 1000)
  --writer-ms N         time of one phase beside a writer (default 4000)
  --limit-s N           time limit of one step of one engine (default 3600)
  --work DIR            keep faces, exact answers and hnswlib's indexes here for the next run (default: a temporary
                        folder below ${tmpdir()}; 200,000 faces of 512 dimensions need 1.5 GB)
  --json PATH           where to write the figures (default reports/bench-engine.json)
  --svg PATH            where to draw recall against throughput (default reports/bench-engine.svg)`;

export interface Options {
  only: PartName[];
  sizes: number[];
  small: number;
  churnSize: number;
  real: boolean;
  quick: boolean;
  dim: number;
  m: number;
  efConstruction: number;
  seed: number;
  rounds: number;
  buildRounds: number;
  pointMs: number;
  writerMs: number;
  limitMs: number;
  work: string | undefined;
  json: string;
  svg: string;
}

const flags = {
  only: { type: "string", default: partNames.join(",") },
  sizes: { type: "string" },
  small: { type: "string" },
  "churn-size": { type: "string" },
  real: { type: "string", default: "yes" },
  quick: { type: "boolean", default: false },
  dim: { type: "string", default: String(defaults.descriptorDim) },
  m: { type: "string", default: String(defaults.m) },
  "ef-construction": { type: "string", default: String(defaults.efConstruction) },
  seed: { type: "string", default: "1" },
  rounds: { type: "string" },
  "build-rounds": { type: "string", default: "1" },
  "point-ms": { type: "string" },
  "writer-ms": { type: "string" },
  "limit-s": { type: "string", default: "3600" },
  work: { type: "string" },
  json: { type: "string", default: "reports/bench-engine.json" },
  svg: { type: "string", default: "reports/bench-engine.svg" },
  help: { type: "boolean", default: false },
} as const;

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new LimError("bad_input", `--${name} must be a whole number above 0, got "${text}"`);
}

function partsOf(text: string): PartName[] {
  const asked = text.split(",").map((name) => name.trim());
  const unknown = asked.filter((name) => !partNames.some((part) => part === name));
  if (unknown.length > 0)
    throw new LimError(
      "bad_input",
      `--only: no part ${unknown.join(", ")}; there are ${partNames.join(", ")}`,
    );
  return partNames.filter((part) => asked.includes(part));
}

/** Undefined where help was asked for. Throws for values that cannot be. */
export function readOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({ args, options: flags });
  if (values.help) return undefined;
  const { quick } = values;
  const positive = (name: Exclude<keyof typeof flags, "quick" | "help">, otherwise = 0) =>
    wholeNumber(name, values[name] ?? String(otherwise));
  if (values.real !== "yes" && values.real !== "no")
    throw new LimError("bad_input", `--real is yes or no, got "${values.real}"`);
  const sizes = (values.sizes ?? (quick ? "5000,20000" : "50000,200000"))
    .split(",")
    .map((text) => wholeNumber("sizes", text.trim()))
    .toSorted((a, b) => a - b);
  return {
    only: partsOf(values.only),
    sizes,
    small: positive("small", quick ? 5_000 : 20_000),
    churnSize: positive("churn-size", quick ? 3_000 : 20_000),
    real: values.real === "yes",
    quick,
    dim: positive("dim"),
    m: positive("m"),
    efConstruction: positive("ef-construction"),
    seed: positive("seed"),
    rounds: positive("rounds", quick ? 1 : 3),
    buildRounds: positive("build-rounds"),
    pointMs: positive("point-ms", quick ? 150 : 1_000),
    writerMs: positive("writer-ms", quick ? 1_000 : 4_000),
    limitMs: positive("limit-s") * 1_000,
    work: values.work,
    json: values.json,
    svg: values.svg,
  };
}
