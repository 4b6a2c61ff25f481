import { parseArgs } from "node:util";
import { defaults, LimError, limits } from "@lim/contracts";
import { type Options as MatchOptions, readOptions as readMatchOptions } from "../match/options.ts";

export const partNames = ["round-trips", "line"] as const;
export type PartName = (typeof partNames)[number];

export const help = `Usage: npm run bench:plugin -- [options]
The search plugin against raw Redis round trips, and exact search against an index by the size of the list.

  --only PARTS          of ${partNames.join(",")} (default both)
                        round-trips  matches/s of the plugin, answered by an echo, to XADD and reply by plain calls
                        line         plugin, matcher and index against the plugin's exact search, on the same lists
  --callers N,N         of round-trips, each with one request at a time (default 1,8,64,256)
  --sizes N,N           faces of the lists of line (default 250,500,1000,2000,5000,10000)
  --line-callers N,N    of line (default 1,16)
  --seconds N           of each measurement (default 2)
  --rounds N            everything in turn, N times; figures are medians (default 3)
  --quick               short windows, one round, two small lists: shows that it works
  --limit N             matches asked for (default 10)
  --ef N                candidates of a search (default ${defaults.efSearch})
  --dim N               (default ${defaults.descriptorDim})
  --seed N              of the faces (default 1)
  --json PATH           where to write the figures (default reports/bench-plugin.json)`;

export interface Options {
  only: PartName[];
  sizes: number[];
  lineCallers: number[];
  json: string;
  /** What the parts shared with bench:match read. */
  match: MatchOptions;
}

const flags = {
  only: { type: "string", default: partNames.join(",") },
  callers: { type: "string", default: "1,8,64,256" },
  sizes: { type: "string" },
  "line-callers": { type: "string", default: "1,16" },
  seconds: { type: "string" },
  rounds: { type: "string" },
  quick: { type: "boolean", default: false },
  limit: { type: "string", default: "10" },
  ef: { type: "string", default: String(defaults.efSearch) },
  dim: { type: "string", default: String(defaults.descriptorDim) },
  seed: { type: "string", default: "1" },
  json: { type: "string", default: "reports/bench-plugin.json" },
  help: { type: "boolean", default: false },
} as const;

const maxFaces = 1_000_000;

function numbersOf(flag: string, text: string, most: number): number[] {
  const numbers = text.split(",").map(Number);
  if (numbers.every((value) => Number.isInteger(value) && value >= 1 && value <= most))
    return [...new Set(numbers)].toSorted((a, b) => a - b);
  throw new LimError("bad_input", `--${flag} must be whole numbers from 1 to ${most}, got "${text}"`);
}

function partsOf(text: string): PartName[] {
  const asked = text.split(",").map((name) => name.trim());
  const unknown = asked.filter((name) => !partNames.some((part) => part === name));
  if (unknown.length === 0) return partNames.filter((part) => asked.includes(part));
  throw new LimError("bad_input", `--only: no ${unknown.join(", ")}; there are ${partNames.join(", ")}`);
}

/** Undefined where help was asked for. Throws `bad_input` for values that cannot be. */
export function readOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({ args, options: flags });
  if (values.help) return undefined;
  const { quick, callers, limit, ef, dim, seed, json } = values;
  const sizes = numbersOf(
    "sizes",
    values.sizes ?? (quick ? "250,1000" : "250,500,1000,2000,5000,10000"),
    maxFaces,
  );
  const match = readMatchOptions([
    ...["--callers", callers, "--limit", limit, "--ef", ef, "--dim", dim, "--seed", seed, "--json", json],
    ...["--seconds", values.seconds ?? (quick ? "1" : "2"), "--rounds", values.rounds ?? (quick ? "1" : "3")],
    ...["--limit-s", "600"],
  ]);
  if (!match) return undefined;
  const lineCallers = numbersOf("line-callers", values["line-callers"], limits.maxMatchLimit);
  return { only: partsOf(values.only), sizes, lineCallers, json, match };
}
