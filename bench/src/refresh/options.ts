import { parseArgs } from "node:util";
import { defaults, type EngineName, engineNameSchema, LimError, limits } from "@lim/contracts";

export const help = `Usage: node bench/dist/refresh.js [options]
Matches over the streams through a real matcher while its list changes: open-loop load at half of saturation, writers in
transactions of ten, and a burst of additions. Ratios of one run. What writers and Postgres take on the same cores is told by
the same flow to a list that is not served.

  --engines E,E    of ${engineNameSchema.options.join(",")} (default both)
  --faces N        faces in the list at the start (default 20000)
  --seconds N      of each flow of changes, and of the load without (default 60)
  --windows N      that they are cut into: without, elsewhere and with changes in turn (default 6)
  --rates N,N      changes a second, one flow each; engine hnsw (default 1000,3000)
  --hnswlib-rates N,N   the same for hnswlib (default 100,300,1000)
  --mix L,R,U      transactions that link, replace and unlink ten faces, in turn (default 6,2,2)
  --burst N        additions at once (default 20000)
  --writers N      connections that write (default 4)
  --load-share P   share of the saturated rate that is asked (default 0.5)
  --callers N      callers that saturate (default 64)
  --limit N        matches asked for (default 10)
  --dim N          (default ${defaults.descriptorDim})
  --seed N         of the faces and of the times of requests (default 1)
  --log-level L    of the matcher (default info, as in earnest)
  --matcher-env K=V,K=V   settings of the matcher
  --quick          2,000 faces, 2 windows of 3 s, a burst of 2,000: shows that it works, its figures mean little
  --strict         exit code 1 where a goal is missed; without it only where an answer was wrong or missing
  --json PATH      where to write the figures (default reports/bench-refresh.json)`;

export interface Mix {
  link: number;
  replace: number;
  unlink: number;
}

export interface Options {
  engines: EngineName[];
  faces: number;
  seconds: number;
  windows: number;
  rates: Record<EngineName, number[]>;
  mix: Mix;
  burst: number;
  writers: number;
  loadShare: number;
  callers: number;
  limit: number;
  dim: number;
  seed: number;
  matcherEnv: Record<string, string>;
  quick: boolean;
  strict: boolean;
  json: string;
}

const flags = {
  engines: { type: "string", default: engineNameSchema.options.join(",") },
  faces: { type: "string" },
  seconds: { type: "string" },
  windows: { type: "string" },
  rates: { type: "string", default: "1000,3000" },
  "hnswlib-rates": { type: "string", default: "100,300,1000" },
  mix: { type: "string", default: "6,2,2" },
  burst: { type: "string" },
  writers: { type: "string", default: "4" },
  "load-share": { type: "string", default: "0.5" },
  callers: { type: "string", default: "64" },
  limit: { type: "string", default: "10" },
  dim: { type: "string", default: String(defaults.descriptorDim) },
  seed: { type: "string", default: "1" },
  "log-level": { type: "string", default: "info" },
  "matcher-env": { type: "string", default: "" },
  quick: { type: "boolean", default: false },
  strict: { type: "boolean", default: false },
  json: { type: "string", default: "reports/bench-refresh.json" },
  help: { type: "boolean", default: false },
} as const;

function wholeNumber(name: string, text: string, least = 1, most = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new LimError("bad_input", `--${name} must be whole numbers from ${least} on, got "${text}"`);
}

const numbersOf = (name: string, text: string, least = 1): number[] =>
  text.split(",").map((one) => wholeNumber(name, one.trim(), least));

function mixOf(text: string): Mix {
  const [link = 0, replace = 0, unlink = 0, ...more] = numbersOf("mix", text, 0);
  if (more.length > 0 || link + replace + unlink === 0)
    throw new LimError("bad_input", `--mix must be three numbers, not all 0, got "${text}"`);
  return { link, replace, unlink };
}

function environmentOf(text: string): Record<string, string> {
  const pairs = text.split(",").filter((pair) => pair !== "");
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) throw new LimError("bad_input", `--matcher-env must be NAME=VALUE, got "${pair}"`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

/** Undefined where help was asked for. Throws `bad_input` for values that cannot be. */
export function readOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({ args, options: flags });
  if (values.help) return undefined;
  const { quick } = values;
  const faces = wholeNumber("faces", values.faces ?? (quick ? "2000" : "20000"), 1_000);
  if (faces % 20 !== 0) throw new LimError("bad_input", `--faces must be a multiple of 20, got ${faces}`);
  const loadShare = Number(values["load-share"]);
  if (!(loadShare > 0 && loadShare <= 2))
    throw new LimError(
      "bad_input",
      `--load-share must be above 0 and at most 2, got "${values["load-share"]}"`,
    );
  return {
    engines: values.engines.split(",").map((name) => engineNameSchema.parse(name.trim())),
    faces,
    seconds: wholeNumber("seconds", values.seconds ?? (quick ? "6" : "60")),
    windows: wholeNumber("windows", values.windows ?? (quick ? "2" : "6"), 1, 90),
    rates: {
      hnsw: numbersOf("rates", values.rates),
      hnswlib: numbersOf("hnswlib-rates", values["hnswlib-rates"]),
    },
    mix: mixOf(values.mix),
    burst: wholeNumber("burst", values.burst ?? (quick ? "2000" : "20000")),
    writers: wholeNumber("writers", values.writers, 1, 32),
    loadShare,
    callers: wholeNumber("callers", values.callers, 1, 1_024),
    limit: wholeNumber("limit", values.limit, 1, 1_000),
    dim: wholeNumber("dim", values.dim, limits.minDim, limits.maxDim),
    seed: wholeNumber("seed", values.seed, 0),
    matcherEnv: { LIM_LOG_LEVEL: values["log-level"], ...environmentOf(values["matcher-env"]) },
    quick,
    strict: values.strict,
    json: values.json,
  };
}
