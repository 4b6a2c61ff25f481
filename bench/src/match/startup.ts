// Part "startup": from the start of a matcher's process until it is ready, with all labels served.
import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { defaults } from "@lim/contracts";
import { ratioText } from "../build/tables.ts";
import { median, ratios } from "../engine/figures.ts";
import type { IndexOperations, IndexPlace } from "./index-child.ts";
import { publishCopy, publishIndex } from "./indexes.ts";
import { matcherModule, withMatcher } from "./matcher.ts";
import { type PartResult, type Run, withChild } from "./run.ts";

/** Indexes that a matcher loads at a time. */
const parallelLoads = 2;
const cacheSetting = "LIM_MATCHER_CACHE";

export async function measureStartup(run: Run): Promise<PartResult> {
  const { options, lists, dir, say } = run;
  const root = join(dir, "indexes-startup");
  const [first, ...others] = lists.startup;
  if (!first) throw new Error("no lists");
  const place = await publishIndex(run, { engine: defaults.engine, root, list: first });
  const places = [place];
  for (const list of others) places.push(await publishCopy(run, place, { list, files: "copy" }));
  const emptyRoot = join(dir, "indexes-none");
  await mkdir(emptyRoot);
  const cached = await hasCacheSetting();
  const cache = { [cacheSetting]: join(dir, "matcher-cache") };
  if (!cached) say(`start with cache is not measured: the matcher has no setting ${cacheSetting}`);
  const empty: number[] = [];
  const bare: number[] = [];
  const cold: number[] = [];
  const withCache: number[] = [];
  const filling = cached ? await readySeconds(run, root, places.length, cache) : undefined;
  for (let start = 0; start < options.starts; start++) {
    say(`start ${start + 1} of ${options.starts}`);
    empty.push(await readySeconds(run, emptyRoot, 0));
    bare.push(await openBare(run, places));
    cold.push(await readySeconds(run, root, places.length));
    if (cached) withCache.push(await readySeconds(run, root, places.length, cache));
  }
  const toBare = ratios(cold, bare);
  const toCold = ratios(withCache, cold);
  const seconds = (values: readonly number[]) => (values.length > 0 ? median(values).toFixed(2) : "–");
  const notMeasured = cached ? "–" : "no such setting";
  return {
    figures: {
      engine: defaults.engine,
      labels: places.length,
      faces: first.faces,
      seconds: { empty, bare, cold, filling, withCache },
      coldToBare: toBare,
      cachedToCold: toCold,
      ...(cached ? {} : { withCacheNotMeasured: `the matcher has no setting ${cacheSetting}` }),
    },
    tables: [
      {
        title:
          `Start to ready, ${places.length} labels of ${first.faces.toLocaleString("en-US")} faces, ` +
          `${defaults.engine}; the files are in the system's cache`,
        head: ["", "s", "ratio"],
        rows: [
          ["no label at all", seconds(empty), ""],
          ["indexes opened by a bare process, so many at a time as a matcher's", seconds(bare), ""],
          ["without cache folder; to the bare process", seconds(cold), ratioText(toBare)],
          ["the same, filling the cache folder", filling?.toFixed(2) ?? notMeasured, ""],
          [
            "with cache folder; to without",
            cached ? seconds(withCache) : notMeasured,
            cached ? ratioText(toCold) : "",
          ],
        ],
      },
    ],
    goals: [],
  };
}

/** Throws where the matcher is ready without serving all labels. */
function readySeconds(
  run: Run,
  root: string,
  labels: number,
  env: Record<string, string> = {},
): Promise<number> {
  return withMatcher(run, root, { env }, async ({ url, readySeconds }) => {
    const response = await fetch(`${url}/indexes`, { signal: run.signal });
    const { indexes } = (await response.json()) as { indexes: { state: string }[] };
    const serving = indexes.filter(({ state }) => state === "serving").length;
    if (serving !== labels) throw new Error(`ready with ${serving} labels of ${labels}`);
    return readySeconds;
  });
}

function openBare(run: Run, places: IndexPlace[]): Promise<number> {
  return withChild<IndexOperations, number>(run, "index-child", "bare opening", (child) =>
    child.call("openAll", { places, atOnce: parallelLoads }),
  );
}

async function hasCacheSetting(): Promise<boolean> {
  const { stdout } = await promisify(execFile)(process.execPath, [matcherModule, "--help"]);
  return stdout.includes(cacheSetting);
}
