// Compiles assembly/ into dist/hnsw.wasm. Memory is imported and shared: a thread is an instance on it.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const room = join(dirname(fileURLToPath(import.meta.url)), "..");
mkdirSync(join(room, "dist"), { recursive: true });
const { error, stderr } = await asc.main([
  join(room, "assembly", "index.ts"),
  "--outFile",
  join(room, "dist", "hnsw.wasm"),
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
