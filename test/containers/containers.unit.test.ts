import { execFile } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { defaults } from "@lim/contracts";
import { expect, test } from "vitest";
import { type ComposeService, durationMs, interpolate, parseCompose } from "./compose.ts";
import { envOf, isInContext, parseDockerfile, wholeStage } from "./dockerfile.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");
const { args, stages } = parseDockerfile(read("Dockerfile"));
const dockerignore = read(".dockerignore");
const compose = parseCompose(read("compose.yaml"));
const packageJson = JSON.parse(read("package.json")) as {
  workspaces: string[];
  devDependencies: Record<string, string>;
};

const kinds = [
  { kind: "index-manager", port: defaults.managerPort, portEnv: "LIM_MANAGER_PORT" },
  { kind: "indexer", port: defaults.indexerPort, portEnv: "LIM_INDEXER_PORT" },
  { kind: "indexed-matcher", port: defaults.matcherPort, portEnv: "LIM_MATCHER_PORT" },
] as const;

function serviceOf(name: string): ComposeService {
  const found = compose.services[name];
  if (found === undefined) throw new Error(`compose.yaml has no service ${name}`);
  return found;
}

const environmentOf = (service: ComposeService) =>
  Object.fromEntries(
    Object.entries(service.environment ?? {}).map(([name, value]) => [name, interpolate(String(value))]),
  );

/** Exit code and standard error of a script that ends by itself. */
async function run(script: string, scriptArgs: string[], env: Record<string, string>) {
  const child = promisify(execFile)(process.execPath, [join(root, script), ...scriptArgs], {
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return child.then(
    ({ stdout }) => ({ code: 0, stdout, stderr: "" }),
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
}

test("images are made with the Node release of the tests", () => {
  expect(args.get("NODE_VERSION")).toBe(packageJson.devDependencies.node);
  for (const stage of stages)
    expect(
      stages.some(({ name }) => name === stage.from) ||
        stage.from === `node:${args.get("NODE_VERSION")}-bookworm-slim`,
      stage.name,
    ).toBe(true);
});

test("the manifests of all workspaces are copied before dependencies are installed", () => {
  const manifests = globSync(
    packageJson.workspaces.map((pattern) => `${pattern}/package.json`),
    { cwd: root, exclude: (path) => path.includes("node_modules") },
  );
  const copied = wholeStage(stages, "manifests")
    .filter(({ op, text }) => op === "COPY" && /^[a-z][\w/-]*\/package\.json /.test(text))
    .map(({ text }) => text.split(" "));
  expect(copied.map(([from]) => from).sort()).toEqual(manifests.sort());
  for (const [from = "", to] of copied) expect(to).toBe(`${dirname(from)}/`);
});

test("what is copied from the context is let in by .dockerignore; what is built or secret is not", () => {
  for (const stage of stages)
    for (const { op, flags, text, line } of stage.instructions) {
      if (op !== "COPY" || flags.from !== undefined) continue;
      for (const source of text.split(" ").slice(0, -1))
        if (source !== ".") expect(isInContext(dockerignore, source), `line ${line}: ${source}`).toBe(true);
    }
  for (const path of [
    "packages/hnsw/assembly/index.ts",
    "packages/faces-db/migrations/0001_faces.sql",
    "packages/coordination/lua/task_create.lua",
    "apps/indexer/src/main.ts",
  ])
    expect(isInContext(dockerignore, path), path).toBe(true);
  for (const path of [
    "node_modules/pg/package.json",
    "packages/hnsw/dist/index.js",
    ".env",
    ".git/config",
    ".lim/postgres/PG_VERSION",
    "test-data/faces.f32",
    "reports/demo.json",
    "packages/hnsw/test/file.unit.test.ts",
    "test/e2e/support.ts",
  ])
    expect(isInContext(dockerignore, path), path).toBe(false);
});

test.each(kinds)("the image of $kind: user, port, health check, command", ({ kind, port, portEnv }) => {
  const instructions = wholeStage(stages, kind);
  const last = (op: string) => instructions.findLast((instruction) => instruction.op === op)?.text;
  expect(last("USER")).toBe("node");
  expect(envOf(instructions)).toMatchObject({
    NODE_ENV: "production",
    [portEnv]: String(port),
    LIM_STORAGE_ROOT: "/var/lib/lim/index-storage",
  });
  expect(last("EXPOSE")).toBe(String(port));
  expect(last("HEALTHCHECK")).toBe('CMD ["node", "health.mjs", "livez"]');
  expect(last("CMD")).toBe(`["node", "--enable-source-maps", "apps/${kind}/dist/main.js"]`);
  expect(read(`openapi/${kind}.yaml`)).toMatch(/^ {2}\/livez:$/m);
  // No compiler and no development dependency in what is shipped.
  expect(instructions.some(({ op, text }) => op === "RUN" && /apt-get|npm/.test(text))).toBe(false);
});

test("compose runs two of each service, after one migration, on one storage, with our Redis settings", () => {
  expect(serviceOf("redis").command?.join(" ")).toMatch(/--maxmemory-policy noeviction --appendonly yes/);
  expect(serviceOf("migrate")).toMatchObject({ build: { target: "cli" }, command: ["migrate"] });
  for (const { kind, port } of kinds) {
    const service = serviceOf(kind);
    expect(service).toMatchObject({
      build: { target: kind },
      restart: "unless-stopped",
      depends_on: {
        migrate: { condition: "service_completed_successfully" },
        redis: { condition: "service_healthy" },
      },
      volumes: ["index-storage:/var/lib/lim/index-storage"],
      deploy: { replicas: 2 },
      healthcheck: { test: ["CMD", "node", "health.mjs", "readyz"] },
    });
    for (const published of service.ports ?? []) expect(published.split(":").at(-1)).toBe(String(port));
    expect(read(`openapi/${kind}.yaml`)).toMatch(/^ {2}\/readyz:$/m);
  }
  for (const [name, service] of Object.entries(compose.services)) {
    for (const needed of Object.keys(service.depends_on ?? {}))
      expect(compose.services, name).toHaveProperty(needed);
    for (const volume of service.volumes ?? [])
      expect(compose.volumes, name).toHaveProperty(volume.split(":")[0] ?? "");
    if (service.build !== undefined)
      expect(stages.map((stage) => stage.name)).toContain(service.build.target);
  }
});

test("a service is given longer to stop than it takes at most", () => {
  const constant = (path: string, name: string) =>
    Number(new RegExp(`const ${name} = ([\\d_]+);`).exec(read(path))?.[1]?.replaceAll("_", ""));
  const needsMs = {
    "index-manager": constant("apps/index-manager/src/main.ts", "forceAfterMs"),
    "indexed-matcher": constant("apps/indexed-matcher/src/main.ts", "forceAfterMs"),
    indexer:
      Number(environmentOf(serviceOf("indexer")).LIM_DRAIN_TIMEOUT_MS) +
      constant("apps/indexer/src/main.ts", "reportOutcomeMs") +
      constant("apps/indexer/src/main.ts", "closeGraceMs") +
      constant("apps/indexer/src/build-process.ts", "cancelGraceMs"),
  };
  for (const [kind, needed] of Object.entries(needsMs)) {
    expect(needed, kind).toBeGreaterThan(0);
    expect(durationMs(serviceOf(kind).stop_grace_period ?? "0s"), kind).toBeGreaterThan(needed);
  }
});

test.each(kinds)(
  "every variable of $kind is a setting of it, with a good value",
  async ({ kind, portEnv }) => {
    const script = `apps/${kind}/dist/main.js`;
    const env = { ...envOf(wholeStage(stages, kind)), ...environmentOf(serviceOf(kind)) };
    const { stdout } = await run(script, ["--help"], {});
    for (const name of Object.keys(env)) if (name !== "NODE_ENV") expect(stdout, name).toContain(` ${name} `);
    // One fault on purpose, so that it does not start: it is the only one.
    const { code, stderr } = await run(script, [], { ...env, [portEnv]: "none" });
    expect(code, stderr).toBe(2);
    expect(stderr.trim().split("\n").slice(1)).toEqual([expect.stringContaining(portEnv)]);
  },
);

test("variables and commands of lim in compose are known to it", async () => {
  const { stdout: help } = await run("cli/dist/main.js", ["--help"], {});
  for (const name of ["migrate", "lim", "demo"])
    for (const variable of Object.keys(environmentOf(serviceOf(name))))
      expect(help, name).toContain(variable);
  const script = serviceOf("demo").command?.join("\n") ?? "";
  const commands = [...script.matchAll(/^node cli\/bin\/lim\.js (.*)$/gm)].map(([, text = ""]) =>
    text.split(" "),
  );
  expect(commands.length).toBeGreaterThan(3);
  const helps = await Promise.all(
    ["import", "tasks create", "match"].map(
      async (name) =>
        [name, (await run("cli/dist/main.js", [...name.split(" "), "--help"], {})).stdout] as const,
    ),
  );
  for (const words of commands) {
    const [, text] = helps.find(([name]) => words.join(" ").startsWith(name)) ?? [];
    for (const option of words.filter((word) => word.startsWith("--")))
      expect(text, words.join(" ")).toContain(option);
  }
});

test("a mistake in compose.yaml is a fault", () => {
  const source = read("compose.yaml");
  const broken: [string | RegExp, string][] = [
    ["replicas: 2", "replica: 2"],
    ["condition: service_healthy", "condition: healthy"],
    ["restart: unless-stopped", "restart: sometimes"],
    ["memory: 1g", "memory: 1 GB"],
    ['["127.0.0.1:5432:5432"]', '["5432:5432"]'],
  ];
  for (const [right, wrong] of broken)
    expect(() => parseCompose(source.replace(right, wrong)), wrong).toThrow();
});
