import { openIndexStorage } from "../src/index.ts";
import { build, contentOf } from "./content.ts";

/** A process that builds and publishes one index, to be killed at any moment. Arguments: root, label, index id, attempt. */
const [root = "", label = "", indexId = "", attempt = "1"] = process.argv.slice(2);
const storage = await openIndexStorage({ root, scratchDir: `${root}/.scratch` });
const keyed = await build(300);
const staging = await storage.stage({ label, indexId, attempt: Number(attempt) });
process.stdout.write("staged\n");
try {
  await staging.publish(keyed, contentOf(label), {
    phases: {},
    onPhase: (phase, done) => process.stdout.write(`${phase} ${done}\n`),
  });
  process.stdout.write("published\n");
} finally {
  await keyed.close();
}
