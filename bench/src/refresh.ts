// What changes of a list cost its matches, and when they can be found: `node bench/dist/refresh.js --help`.
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { help, readOptions } from "./refresh/options.ts";
import { type EngineFigures, faultsOf, missedOf, tableOf } from "./refresh/report.ts";
import { measureEngine } from "./refresh/run.ts";

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  if (options === undefined) {
    console.log(help);
    return;
  }
  const engines: EngineFigures[] = [];
  for (const engine of options.engines) {
    const dir = await mkdtemp(join(tmpdir(), "lim-bench-refresh-"));
    // Postgres runs under an account of its own where this is root, and must reach its folder.
    await chmod(dir, 0o711);
    try {
      engines.push(await measureEngine(options, engine, dir, (text) => console.error(text)));
    } finally {
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    }
  }
  const machine = {
    cpu: cpus()[0]?.model ?? "",
    cores: cpus().length,
    node: process.version,
    loadAverage: loadavg()[0],
  };
  const faults = engines.flatMap(faultsOf);
  const missed = engines.flatMap(missedOf);
  for (const figures of engines) console.log(`\n${tableOf(figures)}`);
  if (faults.length > 0) console.log(`\nwrong:\n${faults.join("\n")}`);
  console.log(missed.length === 0 ? "\nevery goal is met" : `\nmissed:\n${missed.join("\n")}`);
  await mkdir(dirname(options.json), { recursive: true });
  const report = { bench: "refresh", options, machine, engines, faults, missed };
  await writeFile(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  console.log(`figures: ${options.json}`);
  if (faults.length > 0 || (options.strict && missed.length > 0)) process.exitCode = 1;
}

await main();
