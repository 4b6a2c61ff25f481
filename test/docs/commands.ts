import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./blocks.ts";

/** Commands of sh blocks that are not run here, each with what runs it instead, or the reason why nothing does. */
const elsewhere: readonly { command: RegExp; by: string }[] = [
  { command: /^npm run demo( |$)/, by: "test/e2e/demo.e2e.test.ts" },
  { command: /^npm start( |$)/, by: "test/e2e/up.e2e.test.ts" },
  { command: /^npm test$/, by: ".ci/run" },
  { command: /^npm run (build|setup)$/, by: "scripts/setup.mjs" },
  { command: /^npm run openapi$/, by: "scripts/test.mjs" },
  { command: /^npm run (chaos):manager/, by: "test/e2e/chaos-manager.e2e.test.ts" },
  { command: /^npm run (chaos):indexer/, by: "test/e2e/chaos-indexer.e2e.test.ts" },
  { command: /^npm run (chaos):matcher/, by: "test/e2e/chaos-matcher.e2e.test.ts" },
  { command: /^npm run fuzz:api/, by: "test/contract/campaign.int.test.ts" },
  { command: /^npm run fuzz:engine/, by: "packages/hnsw/test/file-mutations.unit.test.ts" },
  // Measurements of many minutes: of them only that the script is there is known here.
  { command: /^npm run (bench|stress|try):/, by: "package.json" },
  { command: /^npx vitest run /, by: "vitest.config.ts" },
  // It fails where a probe takes longer than five seconds, as on a machine that runs tests.
  { command: /^npx lim doctor$/, by: "cli/test/doctor-command.int.test.ts" },
  // No container engine: what a compose file and the images say is held against the code.
  { command: /^docker /, by: "test/containers/containers.unit.test.ts" },
];

const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};

/** What is left of an sh block to run here. Throws where an exception names a script or a test that is not there. */
export function runnableOf(text: string, place: string): string {
  const kept = text.split("\n").filter((line) => {
    const command = line.replace(/\s+#.*$/, "").trim();
    const exception = elsewhere.find((known) => known.command.test(command));
    if (exception === undefined) return true;
    const script = /^npm run (\S+)/.exec(command)?.[1] ?? /^npm (test|start)\b/.exec(command)?.[1];
    if (script !== undefined && scripts[script] === undefined)
      throw new Error(`${place}: package.json has no script "${script}"`);
    for (const word of scripts[script ?? ""]?.split(" ") ?? [])
      if (/\.(mjs|ts)$/.test(word) && !existsSync(join(root, word)))
        throw new Error(`${place}: the script ${script} runs ${word}, which is not there`);
    if (!existsSync(join(root, exception.by)))
      throw new Error(`${place}: "${command}" is said to be tested by ${exception.by}, which is not there`);
    return false;
  });
  const rest = kept.join("\n").trim();
  return rest.replace(/^#.*$/gm, "").trim() === "" ? "" : rest;
}
