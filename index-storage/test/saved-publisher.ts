import { readFileSync } from "node:fs";
import { openIndexStorage, savedIndexSchema } from "../src/index.ts";

/** A process that publishes what another one saved, to be killed at any moment. Arguments: root; saved index on stdin. */
const [root = ""] = process.argv.slice(2);
const saved = savedIndexSchema.parse(JSON.parse(readFileSync(0, "utf8")));
const storage = await openIndexStorage({ root, scratchDir: `${root}/.scratch` });
const staging = await storage.resume({ saved });
process.stdout.write("resumed\n");
await staging.publishSaved(saved, {
  onPhase: (phase, done) => process.stdout.write(`${phase} ${done}\n`),
});
process.stdout.write("published\n");
