import { execFile } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createFaceGenerator, createTestDatabase, faceIdOf, startTestRedis } from "@lim/testkit";
import { afterAll, beforeAll, expect, it } from "vitest";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../../", import.meta.url));
const packages = ["contracts", "coordination", "faces-db", "hnsw", "search-plugin", "vector-index"];

interface Packed {
  name: string;
  filename: string;
  files: { path: string }[];
}

/** A project outside of this repository in which the packages are installed as npm would publish them. */
let project: string;
let packed: Packed[];
let redis: Awaited<ReturnType<typeof startTestRedis>>;
let database: Awaited<ReturnType<typeof createTestDatabase>>;

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "lim-packed-"));
  const scope = join(project, "node_modules", "@lim");
  await mkdir(scope, { recursive: true });
  [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
  const workspaces = packages.flatMap((name) => ["-w", `@lim/${name}`]);
  const { stdout } = await run(
    "npm",
    ["pack", "--json", "--offline", "--ignore-scripts", "--pack-destination", project, ...workspaces],
    { cwd: root, maxBuffer: 1 << 24 },
  );
  packed = Object.values(JSON.parse(stdout)) as Packed[];
  const needed = new Set(["@types/node"]);
  for (const { name, filename } of packed) {
    const folder = join(project, "node_modules", name);
    await mkdir(folder);
    await run("tar", ["-xzf", join(project, filename), "-C", folder, "--strip-components", "1"]);
    const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    for (const dependency of Object.keys(manifest.dependencies ?? {})) needed.add(dependency);
  }
  for (const name of needed) {
    const place = join(project, "node_modules", name);
    if (existsSync(place)) continue;
    await mkdir(dirname(place), { recursive: true });
    await symlink(join(root, "node_modules", name), place);
  }
  await writeFile(join(project, "package.json"), JSON.stringify({ type: "module" }));
});
afterAll(async () => {
  await database?.drop();
  await redis?.stop();
  await rm(project, { recursive: true, force: true, maxRetries: 5 });
});

const node = (args: readonly string[]) =>
  run(process.execPath, args, {
    cwd: project,
    env: { PATH: process.env.PATH, REDIS_URL: redis.url, DATABASE_URL: database.url },
    timeout: 60_000,
  });

it("what is published: code, types, license and README, neither tests nor sources nor native code", () => {
  expect(packed.map(({ name }) => name).toSorted()).toEqual(packages.map((name) => `@lim/${name}`));
  for (const { name, files } of packed) {
    const paths = files.map(({ path }) => path);
    expect([name, paths]).toEqual([
      name,
      expect.arrayContaining(["LICENSE", "package.json", "dist/index.js", "dist/index.d.ts"]),
    ]);
    expect(paths.filter((path) => /(^|\/)(test|src|node_modules)\/|tsbuildinfo|\.node$/.test(path))).toEqual(
      [],
    );
  }
  const plugin = packed.find(({ name }) => name === "@lim/search-plugin");
  expect(plugin?.files.map(({ path }) => path)).toContain("README.md");
});

it("the README's example type-checks and runs against a list", async () => {
  const [, example = ""] =
    /```ts\n([\s\S]*?)```/.exec(readFileSync(new URL("../README.md", import.meta.url), "utf8")) ?? [];
  expect(example.trimEnd().split("\n").length).toBeLessThanOrEqual(10);
  await writeFile(join(project, "example.ts"), example);
  const compilerOptions = {
    ...{ module: "nodenext", target: "es2024", lib: ["es2024"], types: ["node"], noEmit: true, strict: true },
    ...{ noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, skipLibCheck: false },
  };
  await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["example.ts"] }));
  await run(join(root, "node_modules", ".bin", "tsc"), ["-p", project], { cwd: project }).catch(
    ({ stdout }: { stdout: string }) => expect.fail(stdout),
  );
  const generator = createFaceGenerator();
  const { listId } = await database.db.createList({ name: "example" });
  const faces = [0, 1, 2].map((person) => ({
    faceId: faceIdOf("example", person),
    vector: generator.vector(person, 0),
  }));
  await database.db.putFaces({ listIds: [listId], descriptorVersion: 1, faces });
  const { stdout } = await node(["example.ts", listId, faceIdOf("example", 1)]);
  expect(stdout).toMatch(/^exact \d+/);
  expect(stdout).toContain(faceIdOf("example", 1));
});

it("runs with Redis alone, and loads no native code", async () => {
  await writeFile(
    join(project, "bare.js"),
    `import { createSearchPlugin, isLimError } from "@lim/search-plugin";
    const search = await createSearchPlugin({ redis: { url: process.env.REDIS_URL } });
    const label = "0a1b2c3d-0000-4000-8000-000000000000";
    const refusal = await search.match({ label, references: [{ descriptor: new Float32Array(512).fill(1) }] }).catch((e) => e);
    const loaded = process.report.getReport().sharedObjects.filter((path) => path.endsWith(".node"));
    console.log(JSON.stringify([search.labels(), isLimError(refusal, "not_served"), refusal.code, loaded]));
    await search.close();`,
  );
  expect(JSON.parse((await node(["bare.js"])).stdout)).toEqual([[], true, 26301, []]);
  expect(globSync("node_modules/@lim/**/*.node", { cwd: project })).toEqual([]);
});
