import { globSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openIndexCache, openIndexStorage } from "../src/index.ts";

/**
 * A process that opens indexes through a cache, prints what happened and, with `die`, kills itself in the middle of its
 * first copy. Arguments: storage root, cache root, label, index ids separated by commas, "die" or nothing.
 */
const [root = "", cacheRoot = "", label = "", indexIds = "", die] = process.argv.slice(2);
const scratchDir = `${cacheRoot}.scratch`;
const storage = await openIndexStorage({ root, scratchDir });
const cache = openIndexCache({
  root: cacheRoot,
  storage,
  scratchDir,
  onEvent(event) {
    process.stdout.write(`${JSON.stringify(event)}\n`);
    if (event.kind === "storage_read" && die === "die") dieInTheMiddle();
  },
});

function dieInTheMiddle(): void {
  for (const folder of globSync(join(cacheRoot, ".fetching", "*")))
    writeFileSync(join(folder, "index.dat"), "half");
  process.kill(process.pid, "SIGKILL");
}

await Promise.all(
  indexIds.split(",").map(async (indexId) => {
    const { keyed } = await cache.open({ label, indexId });
    process.stdout.write(`${JSON.stringify({ kind: "opened", indexId, count: keyed.count })}\n`);
    await keyed.close();
  }),
);
