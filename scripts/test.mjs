// The whole test command: lint, import rule, types, drift of what is generated, lint of OpenAPI, then unit, integration and end-to-end tests.
// It ends with the tests that failed, each with its file and the first line of its error, and one line that counts
// everything. `--only unit,lint` runs some of the stages.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const bin = join(root, "node_modules", ".bin");
const only = process.argv.includes("--only")
  ? process.argv[process.argv.indexOf("--only") + 1].split(",")
  : undefined;
const scratch = mkdtempSync(join(tmpdir(), "lim-test-"));
const totals = { passed: 0, failed: 0, skipped: 0 };
const failures = [];
const failedTests = [];
let running;

function run(command, args) {
  return new Promise((resolve) => {
    running = spawn(command, args, { cwd: root, stdio: "inherit" });
    running.on("error", (error) => {
      console.error(error.message);
      resolve(1);
    });
    running.on("exit", (code) => resolve(code ?? 1));
  });
}

function checkStage(name, command, args) {
  return {
    name,
    async run() {
      const code = await run(command, args);
      totals[code === 0 ? "passed" : "failed"]++;
      if (code !== 0) failures.push(name);
    },
  };
}

const maxQuoted = 400;
const firstLine = (text) =>
  stripVTControlCharacters(text ?? "")
    .split("\n", 1)[0]
    .slice(0, maxQuoted);

/** Names of what failed: tests, and files that did not load or whose hooks failed. */
function noteFailedTests({ testResults }) {
  for (const { name, status, message, assertionResults } of testResults) {
    const file = relative(root, name);
    const failed = assertionResults.filter((test) => test.status === "failed");
    for (const { fullName, failureMessages } of failed)
      failedTests.push(`${file} > ${fullName}\n    ${firstLine(failureMessages[0])}`);
    if (status === "failed" && failed.length === 0)
      failedTests.push(`${file}\n    ${firstLine(message) || "a hook failed, see above"}`);
  }
}

function vitestStage(project) {
  return {
    name: project,
    async run() {
      const report = join(scratch, `${project}.json`);
      const code = await run(join(bin, "vitest"), [
        "run",
        "--project",
        project,
        "--reporter=default",
        "--reporter=json",
        `--outputFile=${report}`,
      ]);
      let counted;
      try {
        counted = JSON.parse(readFileSync(report, "utf8"));
      } catch {
        totals.failed++;
        failures.push(`${project}: no report`);
        return;
      }
      const notedBefore = failedTests.length;
      noteFailedTests(counted);
      totals.passed += counted.numPassedTests;
      totals.failed += counted.numFailedTests;
      totals.skipped += counted.numPendingTests + counted.numTodoTests;
      // A file that does not load, or an error outside any test, fails the run without failing a test.
      if (code !== 0 && counted.numFailedTests === 0) totals.failed++;
      if (code !== 0) failures.push(project);
      if (code !== 0 && failedTests.length === notedBefore)
        failedTests.push(`${project}: an error outside any test, see above`);
      if (counted.numPassedTests + counted.numFailedTests === 0) {
        totals.failed++;
        failures.push(`${project}: no test ran`);
      }
    },
  };
}

const node = join(bin, "node");
const stages = [
  checkStage("lint", join(bin, "biome"), ["check", "--error-on-warnings", "."]),
  checkStage("edges", node, ["scripts/check-edges.mjs"]),
  checkStage("types", join(bin, "tsc"), ["-p", "tsconfig.tests.json"]),
  checkStage("openapi", node, ["scripts/openapi.mjs", "--check"]),
  checkStage("settings-docs", node, ["scripts/settings-docs.mjs"]),
  checkStage("metrics-docs", node, ["scripts/metrics-docs.mjs"]),
  checkStage("openapi-lint", node, ["scripts/lint-openapi.mjs"]),
  vitestStage("unit"),
  vitestStage("integration"),
  vitestStage("e2e"),
];

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    running?.kill(signal);
    failures.push("interrupted");
  });
}

for (const stage of stages) {
  if (only && !only.includes(stage.name)) continue;
  if (failures.includes("interrupted")) break;
  const startMs = performance.now();
  console.log(`\n── ${stage.name}`);
  await stage.run();
  console.log(`── ${stage.name}: ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}
rmSync(scratch, { recursive: true, force: true });
if (failures.includes("interrupted")) totals.failed++;
if (failures.length > 0) console.log(`\nfailed: ${failures.join(", ")}`);
for (const test of failedTests) console.log(`  ${test}`);
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed === 0 ? 0 : 1);
