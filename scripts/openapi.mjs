// Writes (--write) or checks (--check) openapi/<app>.yaml of every app whose dist/openapi.js exports
// `renderOpenApi(): Promise<string>`. --check exits 1 where a committed file differs from what the app describes.
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { firstDifference, root } from "./generated.mjs";

const folder = join(root, "openapi");
const [mode, ...rest] = process.argv.slice(2);
if ((mode !== "--write" && mode !== "--check") || rest.length > 0) {
  console.error("usage: node scripts/openapi.mjs --write | --check");
  process.exit(2);
}

const apps = [];
const faults = [];
for (const source of globSync("apps/*/src/openapi.ts", { cwd: root }).toSorted()) {
  const dir = join(root, dirname(dirname(source)));
  const app = basename(dir);
  const built = join(dir, "dist", "openapi.js");
  if (!existsSync(built)) {
    faults.push(`${app}: apps/${app}/dist/openapi.js is missing; build first (npm run build)`);
    continue;
  }
  const { renderOpenApi } = await import(pathToFileURL(built).href);
  if (typeof renderOpenApi !== "function") {
    faults.push(`${app}: dist/openapi.js exports no renderOpenApi`);
    continue;
  }
  apps.push(app);
  const text = await renderOpenApi();
  const file = join(folder, `${app}.yaml`);
  if (mode === "--write") {
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, text);
    continue;
  }
  const committed = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (committed !== text)
    faults.push(`openapi/${app}.yaml has drifted at ${firstDifference(committed, text)}`);
}
for (const file of existsSync(folder) ? readdirSync(folder) : [])
  if (file.endsWith(".yaml") && faults.length === 0 && !apps.includes(basename(file, ".yaml")))
    faults.push(`openapi/${file} belongs to no app`);

for (const fault of faults) console.error(fault);
if (faults.length > 0 && mode === "--check")
  console.error("remedy: npm run openapi, look at the diff, commit it");
console.log(
  `openapi: ${apps.length} documents ${mode === "--write" ? "written" : "checked"}, ${faults.length} faults`,
);
process.exit(faults.length === 0 ? 0 : 1);
