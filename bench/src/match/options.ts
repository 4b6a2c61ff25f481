import { parseArgs } from "node:util";
import { defaults, type EngineName, engineNameSchema, LimError, limits } from "@lim/contracts";

export const partNames = ["throughput", "reload", "startup"] as const;
export type PartName = (typeof partNames)[number];

/** Fewer faces tell nothing of a search. */
const minFaces = 100;

export const help = `Usage: npm run bench:match -- [options]
Matches over the Redis streams through a real matcher, its reloads under load, and its start.

  --only PARTS          of ${partNames.join(",")} (default all)
                        throughput  matches/s, p50 and p99 by callers, against the bare engine and against an echo over
                                    the same streams; processor time outside the search
                        reload      indexes replaced under load: failed requests, p99, memory of the matcher
                        startup     from start to ready, with and without the cache folder
  --engines E,E         of ${engineNameSchema.options.join(",")}, for throughput (default both; the others use ${defaults.engine})
  --callers N,N         each with one request at a time (default 1,8,64)
  --faces N             of the list of throughput (default 20000)
  --seconds N           of each measurement of throughput (default 4)
  --rounds N            everything of throughput in turn, N times; figures are medians (default 3)
  --reloads N           (default 200)
  --reload-faces N      of the list whose index is replaced (default 5000)
  --reload-load R       share of the saturated matcher's matches/s that are asked for meanwhile (default 0.5)
  --labels N            of startup (default 10)
  --label-faces N       of each of them (default 20000)
  --starts N            starts of each kind; figures are medians (default 3)
  --quick               small lists, one round, short windows: shows that it works, its figures mean little
  --strict              exit code 1 where a goal is missed; without it only where something was not measured
  --limit N             matches asked for (default 10)
  --ef N                candidates of a search (default ${defaults.efSearch})
  --dim N               (default ${defaults.descriptorDim})
  --m N                 (default ${defaults.m})
  --ef-construction N   (default ${defaults.efConstruction})
  --seed N              of the faces (default 1)
  --profile DIR         throughput: processor profiles of matcher and callers, written there
  --limit-s N           time limit of one step (default 1800)
  --json PATH           where to write the figures (default reports/bench-match.json)`;

export interface Options {
  only: PartName[];
  engines: EngineName[];
  /** Ascending. */
  callers: number[];
  faces: number;
  seconds: number;
  rounds: number;
  reloads: number;
  reloadFaces: number;
  reloadLoad: number;
  labels: number;
  labelFaces: number;
  starts: number;
  quick: boolean;
  strict: boolean;
  limit: number;
  ef: number;
  dim: number;
  m: number;
  efConstruction: number;
  seed: number;
  profile: string | undefined;
  limitMs: number;
  json: string;
}

const flags = {
  only: { type: "string", default: partNames.join(",") },
  engines: { type: "string", default: engineNameSchema.options.join(",") },
  callers: { type: "string", default: "1,8,64" },
  faces: { type: "string" },
  seconds: { type: "string" },
  rounds: { type: "string" },
  reloads: { type: "string" },
  "reload-faces": { type: "string" },
  "reload-load": { type: "string", default: "0.5" },
  labels: { type: "string", default: "10" },
  "label-faces": { type: "string" },
  starts: { type: "string" },
  quick: { type: "boolean", default: false },
  strict: { type: "boolean", default: false },
  limit: { type: "string", default: "10" },
  ef: { type: "string", default: String(defaults.efSearch) },
  dim: { type: "string", default: String(defaults.descriptorDim) },
  m: { type: "string", default: String(defaults.m) },
  "ef-construction": { type: "string", default: String(defaults.efConstruction) },
  seed: { type: "string", default: "1" },
  profile: { type: "string" },
  "limit-s": { type: "string", default: "1800" },
  json: { type: "string", default: "reports/bench-match.json" },
  help: { type: "boolean", default: false },
} as const;

function wholeNumber(name: string, text: string, least = 1, most: number = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least} on` : `from ${least} to ${most}`;
  throw new LimError("bad_input", `--${name} must be a whole number ${range}, got "${text}"`);
}

function shareOf(name: string, text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 1) return value;
  throw new LimError("bad_input", `--${name} must be a number above 0, at most 1, got "${text}"`);
}

function numbersOf(name: string, text: string): number[] {
  const numbers = text.split(",").map((one) => wholeNumber(name, one.trim(), 1, maxCallers));
  return [...new Set(numbers)].toSorted((a, b) => a - b);
}

function namesOf<T extends string>(flag: string, text: string, known: readonly T[]): T[] {
  const asked = text.split(",").map((name) => name.trim());
  const unknown = asked.filter((name) => !known.some((one) => one === name));
  if (unknown.length === 0) return known.filter((name) => asked.includes(name));
  throw new LimError("bad_input", `--${flag}: no ${unknown.join(", ")}; there are ${known.join(", ")}`);
}

/** Far above it a client refuses requests (overloaded). */
const maxCallers = 4_096;

/** Undefined where help was asked for. Throws `bad_input` for values that cannot be. */
export function readOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({ args, options: flags });
  if (values.help) return undefined;
  const { quick, strict } = values;
  const usual = (text: string | undefined, whole: string, short: string) => text ?? (quick ? short : whole);
  return {
    only: namesOf("only", values.only, partNames),
    engines: namesOf("engines", values.engines, engineNameSchema.options),
    callers: numbersOf("callers", values.callers),
    faces: wholeNumber("faces", usual(values.faces, "20000", "2000"), minFaces),
    seconds: wholeNumber("seconds", usual(values.seconds, "4", "1")),
    rounds: wholeNumber("rounds", usual(values.rounds, "3", "1")),
    reloads: wholeNumber("reloads", usual(values.reloads, "200", "24"), 4),
    reloadFaces: wholeNumber("reload-faces", usual(values["reload-faces"], "5000", "1000"), minFaces),
    reloadLoad: shareOf("reload-load", values["reload-load"]),
    labels: wholeNumber("labels", values.labels, 1, 1_000),
    labelFaces: wholeNumber("label-faces", usual(values["label-faces"], "20000", "1000"), minFaces),
    starts: wholeNumber("starts", usual(values.starts, "3", "1")),
    quick,
    strict,
    limit: wholeNumber("limit", values.limit, 1, limits.maxMatchLimit),
    ef: wholeNumber("ef", values.ef),
    dim: wholeNumber("dim", values.dim, limits.minDim, limits.maxDim),
    m: wholeNumber("m", values.m),
    efConstruction: wholeNumber("ef-construction", values["ef-construction"]),
    seed: wholeNumber("seed", values.seed, 0),
    profile: values.profile,
    limitMs: wholeNumber("limit-s", values["limit-s"]) * 1_000,
    json: values.json,
  };
}
