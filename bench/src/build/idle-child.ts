// A process of a build that has everything but work: its module is loaded and waits for an order that never comes, then
// the engine is there with an index that holds nothing. Arguments: the module, the engine, dim, m, efConstruction.
import { setTimeout as sleep } from "node:timers/promises";
import { engineNameSchema } from "@lim/contracts";
import { loadEngine } from "@lim/vector-index";

/** Resident bytes. */
export interface IdleMemory {
  /** It waits for its order. */
  waitingBytes: number;
  /** Its engine is there as well, with an index that holds nothing. */
  emptyBytes: number;
}

const settleMs = 500;

const [module, name, dim, m, efConstruction] = process.argv.slice(2);
if (module === undefined) throw new Error("no module named");
await import(module);
await sleep(settleMs);
const waitingBytes = process.memoryUsage.rss();
const engine = await loadEngine(engineNameSchema.parse(name));
const params = { m: Number(m), efConstruction: Number(efConstruction) };
const index = await engine.create({ dim: Number(dim), capacity: 1, params });
await sleep(settleMs);
const emptyBytes = process.memoryUsage.rss();
process.send?.({ waitingBytes, emptyBytes } satisfies IdleMemory);
await index.close();
