// Recall@10 of updated indexes under churn against fresh builds of the same content. Not part of the tests; needs
// Postgres (DATABASE_URL; its data is made new lists of):
//   node apps/indexer/test/churn-figures.ts [faces] [probes] [seed]
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFacesDb } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { startPostgres } from "@lim/local-servers";
import { availableEngines } from "@lim/vector-index";
import { type ChurnRow, measureChurn } from "./churn.ts";

const shares = [0.1, 0.3, 0.5];

const [faces = 10_000, probes = 500, seed = 1] = process.argv.slice(2).map(Number);
const dir = await mkdtemp(join(tmpdir(), "lim-churn-"));
const postgres = await startPostgres({
  dir: join(dir, "postgres"),
  url: process.env.DATABASE_URL,
  database: "lim_churn",
});
const db = openFacesDb({ connectionString: postgres.url });
try {
  await db.migrate();
  const storage = await openIndexStorage({ root: join(dir, "storage") });
  console.log(`${faces} faces, ${probes} probes, seed ${seed}`);
  for (const engine of await availableEngines()) {
    const startMs = performance.now();
    const rows = await measureChurn({ db, storage }, { engine, faces, shares, probes, seed });
    console.table(rows.map(asShown));
    console.log(`${engine}: ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  }
} finally {
  await db.close();
  await postgres.stop();
  await rm(dir, { recursive: true, force: true });
}

function asShown({ engine, replacedShare, updated, fresh, removedSinceRebuild, slots }: ChurnRow) {
  return {
    engine,
    "replaced %": Math.round(replacedShare * 100),
    "recall updated": updated.toFixed(4),
    "recall fresh": fresh.toFixed(4),
    difference: (updated - fresh).toFixed(4),
    "removed since rebuild": removedSinceRebuild,
    slots,
  };
}
