// Kills the build processes and indexers of a running LIM again and again, and checks that readers never see a partial
// index, that no task hangs and that nothing is left.
//   node test/chaos/indexer/main.ts [--kills 200] [--seed 1] [--max-minutes 15] …
import { join } from "node:path";
import { finish, readCommandLine, stopSignal, withWorld } from "../command.ts";
import { type ChaosOptions, type ChaosReport, chaosDefaults, runChaos } from "./run.ts";

const defaultReport = "reports/chaos-indexer.json";

const help = `Kills build processes and indexers again and again, with real processes, Redis, Postgres and storage.

  --kills N          processes to kill with SIGKILL; other faults come on top (default ${chaosDefaults.kills})
  --seed N           of all chances (default ${chaosDefaults.seed}); processes still race, so a run is not repeated to the letter
  --max-minutes N    no more faults then, and the run has failed where kills are missing (default ${chaosDefaults.maxMinutes})
  --indexers N       (default ${chaosDefaults.indexers})
  --lists N          (default ${chaosDefaults.lists})
  --faces N          most faces of a new list, half of it the least (default ${chaosDefaults.faces})
  --engines A,B      engines, one after the other (default ${chaosDefaults.engines.join(",")})
  --report FILE      the report as JSON (default ${defaultReport})
  --json             prints the report as JSON only

Exit code 0 where every rule held, 1 where one was broken, 2 for wrong use.`;

const line = readCommandLine(help, {
  texts: ["kills", "seed", "max-minutes", "indexers", "lists", "faces", "engines"],
});
const options: ChaosOptions = {
  kills: line.number("kills", chaosDefaults.kills, { least: 1 }),
  seed: line.number("seed", chaosDefaults.seed, { least: 0 }),
  maxMinutes: line.number("max-minutes", chaosDefaults.maxMinutes, { least: 0.1, fraction: true }),
  indexers: line.number("indexers", chaosDefaults.indexers, { least: 1 }),
  lists: line.number("lists", chaosDefaults.lists, { least: 1 }),
  faces: line.number("faces", chaosDefaults.faces, { least: 100 }),
  engines: line.engines(chaosDefaults.engines),
  signal: stopSignal(),
  ...(line.has("json") ? {} : { log: (text: string) => console.error(text) }),
};
console.error(`seed ${options.seed}`);
const report = await withWorld(({ dir, servers, db }) =>
  runChaos(
    { servers, db, storageRoot: join(dir, "index-storage"), scratchDir: join(dir, "scratch") },
    options,
  ),
);
await finish(report, line, { defaultPath: defaultReport, print });

function print(report: ChaosReport): void {
  const { seed, kills, engines, seconds, figures, violations } = report;
  console.log(`seed ${seed}, ${kills} kills in ${seconds} s, engines ${engines.join(", ")}`);
  for (const [group, counts] of Object.entries(figures)) {
    console.log(`\n${group}`);
    for (const [key, count] of Object.entries(counts)) console.log(`  ${String(count).padStart(6)}  ${key}`);
  }
  if (report.memory.length > 0) console.table(report.memory);
  for (const what of report.skipped) console.log(`not done here: ${what}`);
  for (const violation of violations) console.log(`VIOLATION ${violation}`);
  console.log(
    report.ok
      ? "ok: no partial index visible, no task stuck, nothing left"
      : `${violations.length} violations, seed ${seed}`,
  );
}
