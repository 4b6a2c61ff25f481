// Makes the master of three Index Managers fail again and again, and checks that nothing is lost or built twice.
//   node test/chaos/manager.ts [--failovers 100] [--seed 1] [--lease-ms 1500] [--max-minutes 15] …
import { join } from "node:path";
import { finish, readCommandLine, withWorld } from "./command.ts";
import { type ChaosOptions, type ChaosReport, chaosDefaults, runChaos } from "./run.ts";

const help = `Makes the master of several Index Managers fail again and again, with real processes, Redis, Postgres and storage.

  --failovers N      fail-overs until the run ends (default ${chaosDefaults.failovers})
  --seed N           of all chances (default ${chaosDefaults.seed}); processes still race, so a run is not repeated to the letter
  --lease-ms N       the master's lease, 500 or more (default ${chaosDefaults.leaseTtlMs})
  --max-minutes N    the run ends then, in failure where fail-overs are missing (default ${chaosDefaults.maxMinutes})
  --flush-every N    every N-th fault empties Redis; 0: none (default ${chaosDefaults.flushEvery})
  --restart-every N  every N-th fault restarts Redis empty; 0: none (default ${chaosDefaults.restartEvery})
  --managers N       (default ${chaosDefaults.managers}, at least 2)
  --peers N          indexers in this process that fail, crash, refuse and dawdle (default ${chaosDefaults.peers})
  --lists N          (default ${chaosDefaults.lists})
  --report FILE      also writes the report there, as JSON
  --json             prints the report as JSON only

Exit code 0 where every rule held, 1 where one was broken, 2 for wrong use.`;

const line = readCommandLine(help, {
  texts: [
    "failovers",
    "seed",
    "lease-ms",
    "max-minutes",
    "flush-every",
    "restart-every",
    "managers",
    "peers",
    "lists",
  ],
});
const options: ChaosOptions = {
  failovers: line.number("failovers", chaosDefaults.failovers, { least: 1 }),
  seed: line.number("seed", chaosDefaults.seed, { least: 0 }),
  leaseTtlMs: line.number("lease-ms", chaosDefaults.leaseTtlMs, { least: 500 }),
  maxMinutes: line.number("max-minutes", chaosDefaults.maxMinutes, { least: 0.1, fraction: true }),
  flushEvery: line.number("flush-every", chaosDefaults.flushEvery, { least: 0 }),
  restartEvery: line.number("restart-every", chaosDefaults.restartEvery, { least: 0 }),
  managers: line.number("managers", chaosDefaults.managers, { least: 2 }),
  peers: line.number("peers", chaosDefaults.peers, { least: 1 }),
  lists: line.number("lists", chaosDefaults.lists, { least: 1 }),
  ...(line.has("json") ? {} : { log: (text: string) => console.error(text) }),
};
console.error(`seed ${options.seed}`);
const report = await withWorld(({ dir, servers, redis, db }) =>
  runChaos({ servers, redis, db, storageRoot: join(dir, "index-storage") }, options),
);
await finish(report, line, { print });

function print(report: ChaosReport): void {
  const rows = { ...report.takeover_by_fault, "all faults": report.takeover };
  console.log(
    `seed ${report.seed}, lease ${report.lease_ms} ms, ${report.failovers} fail-overs in ${report.seconds} s`,
  );
  console.table(rows);
  console.table(report.figures);
  console.table(report.answers);
  for (const violation of report.violations) console.log(`VIOLATION ${violation}`);
  console.log(
    report.ok
      ? `ok: every take-over within ${report.allowed_takeover_ms} ms, nothing lost, nothing built twice`
      : `${report.violations.length} violations`,
  );
}
