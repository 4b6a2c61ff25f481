// Kills, pauses and starves Indexed Matchers under load, and checks that every request gets one right answer or a clear
// error in time.
//   node test/chaos/matcher/main.ts [--minutes 5] [--seed 1] …
import { finish, readCommandLine, stopSignal, withWorld } from "../command.ts";
import { faultKinds } from "./faults.ts";
import { marginMs } from "./requests.ts";
import { type ChaosOptions, type ChaosReport, chaosDefaults, runChaos } from "./run.ts";

const defaultReport = "reports/chaos-matcher.json";

const help = `Kills, pauses and starves Indexed Matchers under load, with real processes, Redis, Postgres and storage.

  --minutes N     how long faults happen (default ${chaosDefaults.minutes}); what follows takes up to two more
  --seed N        of all chances (default ${chaosDefaults.seed}); processes still race, so a run is not repeated to the letter
  --matchers N    (default ${chaosDefaults.matchers}, at least 2)
  --lists N       (default ${chaosDefaults.lists})
  --faces N       most faces of a list, a quarter of it the least (default ${chaosDefaults.faces.most})
  --callers N     callers; of three, one is raw, one has exact search to fall back on (default ${chaosDefaults.callers})
  --engines A,B   engines of the indexes (default ${chaosDefaults.engines.join(",")})
  --fault KIND    only this fault, again and again: ${faultKinds.join("; ")}
  --report FILE   the report as JSON (default ${defaultReport})
  --json          prints the report as JSON only

Every request must be over ${marginMs.plugin / 1_000} s after its deadline, a raw one ${marginMs.raw / 1_000} s. The first rule that is broken ends the faults; the
report then holds what happened around it.

Exit code 0 where every rule held, 1 where one was broken, 2 for wrong use.`;

const line = readCommandLine(help, {
  texts: ["minutes", "seed", "matchers", "lists", "faces", "callers", "engines", "fault"],
});
const mostFaces = line.number("faces", chaosDefaults.faces.most, { least: 100 });
const only = line.oneOf("fault", faultKinds);
const options: ChaosOptions = {
  minutes: line.number("minutes", chaosDefaults.minutes, { least: 0.1, fraction: true }),
  seed: line.number("seed", chaosDefaults.seed, { least: 0 }),
  matchers: line.number("matchers", chaosDefaults.matchers, { least: 2 }),
  lists: line.number("lists", chaosDefaults.lists, { least: 1 }),
  faces: { least: Math.ceil(mostFaces / 4), most: mostFaces },
  callers: line.number("callers", chaosDefaults.callers, { least: 1 }),
  engines: line.engines(chaosDefaults.engines),
  ...(only === undefined ? {} : { only }),
  signal: stopSignal(),
  ...(line.has("json") ? {} : { log: (text: string) => console.error(text) }),
};
console.error(`seed ${options.seed}`);
// Redis keeps what it has over a restart, and what it has told of over a kill; a flush before makes it an empty one.
const redisArgs = ["--appendonly", "yes", "--appendfsync", "no"];
const report = await withWorld((world) => runChaos(world, options), { redisArgs });
await finish({ ...report, again: commandAgain() }, line, { defaultPath: defaultReport, print });

function commandAgain(): string {
  const given = process.argv.slice(2).map((word) => (/\s/.test(word) ? `"${word}"` : word));
  return ["node test/chaos/matcher/main.ts", ...given].join(" ");
}

function print(report: ChaosReport & { again: string }): void {
  const { seed, faults, engines, seconds, figures, violations } = report;
  console.log(`seed ${seed}, ${faults} faults in ${seconds} s, engines ${engines.join(", ")}`);
  for (const [group, counts] of Object.entries(figures)) {
    console.log(`\n${group}`);
    for (const [key, count] of Object.entries(counts)) console.log(`  ${String(count).padStart(6)}  ${key}`);
  }
  if (report.memory.length > 0) console.table(report.memory);
  for (const what of report.skipped) console.log(`not done here: ${what}`);
  if (violations.length > 0) for (const event of report.history) console.log(JSON.stringify(event));
  for (const violation of violations) console.log(`VIOLATION ${violation}`);
  console.log(
    report.ok
      ? "ok: every request was answered rightly or told why not in time, nothing left"
      : `${violations.length} violations, seed ${seed}; again with: ${report.again}`,
  );
}
