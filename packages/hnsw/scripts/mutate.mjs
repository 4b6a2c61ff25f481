// The long campaign of damaged files (test/mutations.ts): node scripts/mutate.mjs [--cases 100000] [--seed N]
// [--limit-seconds 1800] [--from 0]. Ends with 1 on any violation; a case that does not end is one.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const stepCases = 200;
/** A step takes about half a second. */
const stuckMs = 60_000;
const maxShownViolations = 20;

async function campaign() {
  const { Campaign } = await import("../test/mutations.ts");
  const { folder, seed, from, cases, limitSeconds } = workerData;
  const endMs = performance.now() + limitSeconds * 1000;
  const run = await Campaign.in(folder);
  for (let number = from; number < from + cases && performance.now() < endMs; number++) {
    if ((number - from) % stepCases === 0) parentPort.postMessage({ at: number });
    await run.run(seed, number);
  }
  parentPort.postMessage({ outcome: run.outcome });
}

async function watch() {
  const { values } = parseArgs({
    options: {
      cases: { type: "string", default: "100000" },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      from: { type: "string", default: "0" },
      "limit-seconds": { type: "string", default: "1800" },
    },
  });
  const settings = {
    folder: mkdtempSync(join(tmpdir(), "hnsw-mutate-")),
    seed: Number(values.seed),
    from: Number(values.from),
    cases: Number(values.cases),
    limitSeconds: Number(values["limit-seconds"]),
  };
  if (Object.values(settings).some(Number.isNaN)) throw new RangeError("settings are numbers");
  console.log(`seed ${settings.seed}, ${settings.cases} damaged files from number ${settings.from}`);
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: settings });
  try {
    return report(await outcomeOf(worker), settings);
  } finally {
    await worker.terminate();
    rmSync(settings.folder, { recursive: true });
  }
}

function outcomeOf(worker) {
  const { promise, resolve, reject } = Promise.withResolvers();
  let at = 0;
  const stuck = setTimeout(() => reject(new Error(`no end within ${stuckMs} ms after case ${at}`)), stuckMs);
  worker.on("message", (message) => {
    stuck.refresh();
    if (message.outcome) {
      clearTimeout(stuck);
      resolve(message.outcome);
    } else at = message.at;
  });
  worker.on("error", reject);
  worker.on("exit", (code) =>
    reject(new Error(`the process of the campaign ended with ${code} after case ${at}`)),
  );
  return promise.finally(() => clearTimeout(stuck));
}

function report({ cases, refused, answered, unchanged, violations }, settings) {
  const reasons = Object.entries(refused).sort((a, b) => b[1] - a[1]);
  for (const [why, count] of reasons) console.log(`${String(count).padStart(8)}  refused: ${why}`);
  console.log(`${String(answered).padStart(8)}  answered, of which ${unchanged} were not changed at all`);
  console.log(`${String(violations.length).padStart(8)}  violations`);
  for (const violation of violations.slice(0, maxShownViolations)) console.error(violation);
  if (cases < settings.cases) console.log(`${cases} of ${settings.cases} within the limit of time`);
  return violations.length === 0 && cases > 0 ? 0 : 1;
}

if (isMainThread) process.exitCode = await watch();
else await campaign();
