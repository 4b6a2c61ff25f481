// Compiles assembly/ into dist/hnsw.wasm. Memory is imported and shared: a thread is an instance on it. Tests compile
// another entry file elsewhere: node scripts/assemble.mjs --entry testing.ts --out FILE
import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import asc from "assemblyscript/asc";

const room = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values } = parseArgs({
  options: {
    entry: { type: "string", default: "index.ts" },
    out: { type: "string", default: join(room, "dist", "hnsw.wasm") },
  },
});
const out = resolve(values.out);
mkdirSync(dirname(out), { recursive: true });
const { error, stderr } = await asc.main([
  join(room, "assembly", values.entry),
  "--outFile",
  out,
  "-O3",
  "--noAssert",
  "--runtime",
  "stub",
  "--enable",
  "simd,relaxed-simd,threads",
  "--importMemory",
  "--sharedMemory",
  "--initialMemory",
  "2",
  "--maximumMemory",
  "65536",
]);
if (error) {
  console.error(stderr.toString());
  console.error(error.message);
  process.exit(1);
}
