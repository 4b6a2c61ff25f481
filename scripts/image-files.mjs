// What an image needs of workspaces: their package.json and published files, and those of all @lim packages that they
// depend on, in the same places. Types and build notes stay behind. Zero dependencies.
//   node scripts/image-files.mjs <out> <workspace folder…>
import { cpSync, globSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const [out, ...wanted] = process.argv.slice(2);
if (!out || wanted.length === 0) throw new Error("usage: image-files.mjs <out> <workspace folder…>");

const { workspaces } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const manifests = new Map();
const folderOf = new Map();
for (const manifest of globSync(
  workspaces.map((pattern) => `${pattern}/package.json`),
  { cwd: root },
)) {
  const folder = dirname(manifest);
  const json = JSON.parse(readFileSync(join(root, manifest), "utf8"));
  manifests.set(folder, json);
  folderOf.set(json.name, folder);
}

const isUnneeded = (path) => /\.d\.ts(\.map)?$|\.tsbuildinfo$/.test(path);
const taken = new Set();
const waiting = [...wanted];
while (waiting.length > 0) {
  const folder = waiting.pop();
  if (taken.has(folder)) continue;
  taken.add(folder);
  const json = manifests.get(folder);
  if (!json) throw new Error(`${folder} is no workspace`);
  for (const name of Object.keys(json.dependencies ?? {}))
    if (folderOf.has(name)) waiting.push(folderOf.get(name));
  mkdirSync(join(out, folder), { recursive: true });
  // What a package leaves out of its archive (source maps) helps to read a stack trace of a service.
  for (const entry of ["package.json", ...(json.files ?? []).filter((file) => !file.startsWith("!"))])
    cpSync(join(root, folder, entry), join(out, folder, entry), {
      recursive: true,
      filter: (source) => !isUnneeded(source),
    });
}
console.error(`image-files: ${[...taken].sort().join(", ")}`);
