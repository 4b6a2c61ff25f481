import { engineNameSchema } from "@lim/contracts";
import { openIndexStorage } from "../src/index.ts";
import { build, contentOf, idOf } from "./content.ts";

/** Makes the golden index of an engine, as `damage.int.test.ts` expects it. Arguments: root, engine. */
const [root = "", name] = process.argv.slice(2);
const engine = engineNameSchema.parse(name);
const storage = await openIndexStorage({ root });
const keyed = await build(40, 1, engine);
try {
  await keyed.apply({ upserts: [], removals: [idOf(3), idOf(17)] });
  const label = idOf(1000);
  const staging = await storage.stage({ label, indexId: idOf(3000), attempt: 1 });
  const content = { ...contentOf(label, 42, engine), removedSinceRebuild: 2 };
  await staging.publish(keyed, content, { phases: {} });
} finally {
  await keyed.close();
}
