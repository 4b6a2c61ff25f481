import { openIndexStorage } from "../src/index.ts";
import { build, contentOf } from "./content.ts";

/**
 * A process that builds and saves one index, prints what was saved and ends. Arguments: root, label, index id, attempt,
 * engine.
 */
const [root = "", label = "", indexId = "", attempt = "1", name = "hnsw"] = process.argv.slice(2);
const engine = name === "hnswlib" ? "hnswlib" : "hnsw";
const storage = await openIndexStorage({ root, scratchDir: `${root}/.scratch` });
const keyed = await build(300, 1, engine);
const staging = await storage.stage({ label, indexId, attempt: Number(attempt) });
const saved = await staging.save(keyed, contentOf(label, 9, engine), { phases: { build: 5 } });
await keyed.close();
process.stdout.write(JSON.stringify(saved));
