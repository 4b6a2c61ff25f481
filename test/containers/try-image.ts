// Does what an image's build would do, without a container engine: for each stage that the target needs, the COPY and
// RUN instructions of the Dockerfile in their order, in an empty folder, from the last commit's files as
// .dockerignore lets them in. Then the target's command runs with --help, and both engines are loaded.
//   node test/containers/try-image.ts [target…]     default: all of them
// What differs from an engine: paths are inside the folder, the base image is this machine with this Node, packages of
// Debian are looked for and not installed, owners and users are left alone.
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";
import {
  envOf,
  type Instruction,
  isInContext,
  parseDockerfile,
  type Stage,
  wholeStage,
} from "./dockerfile.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const finals = ["index-manager", "indexer", "indexed-matcher", "cli"];
const targets = process.argv.length > 2 ? process.argv.slice(2) : finals;
const { stages } = parseDockerfile(readFileSync(join(root, "Dockerfile"), "utf8"));
const dockerignore = readFileSync(join(root, ".dockerignore"), "utf8");
const scratch = mkdtempSync(join(tmpdir(), "lim-image-"));
const context = join(scratch, "context");
/** Folders of the images that instructions name; in commands they are replaced by those in the scratch folder. */
const imageFolders = /(?<=^|[\s=])\/(src|out|app|var\/lib\/lim)(?=\/|\s|$)/g;
/** What a package of Debian is needed for. */
const toolOf: Readonly<Record<string, string>> = { "g++": "c++", make: "make", python3: "python3" };
const done = new Map<string, string>();

function say(text: string): void {
  console.log(`[${(performance.now() / 1000).toFixed(0).padStart(4)} s] ${text}`);
}

function copyContext(): void {
  const checkout = join(scratch, "checkout");
  mkdirSync(checkout);
  const archive = execFileSync("git", ["archive", "HEAD"], { cwd: root, maxBuffer: 1 << 29 });
  execFileSync("tar", ["-x", "-C", checkout], { input: archive });
  for (const path of readdirSync(checkout, { recursive: true, withFileTypes: true })) {
    if (!path.isFile()) continue;
    const name = relative(checkout, join(path.parentPath, path.name));
    if (!isInContext(dockerignore, name)) continue;
    mkdirSync(dirname(join(context, name)), { recursive: true });
    cpSync(join(checkout, name), join(context, name));
  }
}

/** The folder of a stage that was made, with all that it needs made before it. */
function make(stage: Stage): string {
  const before = done.get(stage.name);
  if (before !== undefined) return before;
  const base = stages.find(({ name }) => name === stage.from);
  const folder = join(scratch, stage.name);
  mkdirSync(folder);
  if (base !== undefined) {
    const from = make(base);
    cpSync(from, folder, { recursive: true, verbatimSymlinks: true });
  }
  for (const { flags } of stage.instructions) {
    const needed = stages.find(({ name }) => name === flags.from);
    if (needed !== undefined) make(needed);
  }
  say(`stage ${stage.name}`);
  const inherited = wholeStage(stages, stage.from);
  let cwd = inherited.findLast(({ op }) => op === "WORKDIR")?.text ?? "/";
  const env = { ...envOf(inherited) };
  for (const instruction of stage.instructions) {
    const { op, text } = instruction;
    if (op === "WORKDIR") cwd = text;
    else if (op === "ENV") Object.assign(env, envOf([instruction]));
    else if (op === "COPY") copy(folder, cwd, instruction);
    else if (op === "RUN") runAll(folder, cwd, env, instruction);
    if (op === "WORKDIR") mkdirSync(join(folder, cwd), { recursive: true });
  }
  done.set(stage.name, folder);
  return folder;
}

function copy(folder: string, cwd: string, { flags, text, line }: Instruction): void {
  const words = text.split(/\s+/);
  const target = words.at(-1) ?? "";
  const sources = words.slice(0, -1);
  const sourceRoot = flags.from === undefined ? context : done.get(flags.from);
  if (sourceRoot === undefined) throw new Error(`line ${line}: no stage ${flags.from}`);
  const to = join(folder, posix.resolve(cwd, target));
  for (const source of sources) {
    const from = join(sourceRoot, source);
    if (!existsSync(from)) throw new Error(`line ${line}: ${source} is not there`);
    const isFolder = statSync(from).isDirectory();
    // Like an engine: the contents of a folder, a file into a folder where the target ends with a slash.
    const place = isFolder || !/(^\.|\/)$/.test(target) ? to : join(to, posix.basename(source));
    mkdirSync(isFolder ? place : dirname(place), { recursive: true });
    cpSync(from, place, { recursive: true, verbatimSymlinks: true });
  }
}

function runAll(folder: string, cwd: string, env: Record<string, string>, { text, line }: Instruction): void {
  for (const command of text.split(" && ").map((part) => part.trim())) {
    if (command.startsWith("apt-get install")) {
      const packages = command
        .split(/\s+/)
        .slice(2)
        .filter((word) => !word.startsWith("-"));
      for (const name of packages)
        if (spawnSync("sh", ["-c", `command -v ${toolOf[name] ?? name}`]).status !== 0)
          throw new Error(`line ${line}: ${name} is not on this machine`);
      say(`  not run, all there: ${command}`);
    } else if (/^(apt-get|chown) /.test(command)) say(`  not run: ${command}`);
    else {
      say(`  ${command}`);
      const here = command.replace(imageFolders, (path) => join(folder, path));
      const result = spawnSync("sh", ["-ec", here], {
        cwd: join(folder, cwd),
        env: { ...cleanEnvironment(), npm_config_prefer_offline: "true", ...env, ...headersOf(env) },
        stdio: ["ignore", "pipe", "inherit"],
        encoding: "utf8",
      });
      if (result.status !== 0)
        throw new Error(
          `${result.stdout}line ${line}: exit code ${result.status ?? result.signal}: ${command}`,
        );
    }
  }
}

/** Nothing of an npm that started this, of this checkout or of a running stack may reach the commands. */
function cleanEnvironment(): Record<string, string> {
  const foreign =
    /^(npm_(config_local_prefix|lifecycle|package|command|execpath)|NODE_|(VL_)?LIM_|REDIS_URL|DATABASE_URL)/;
  const kept = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  const path = (process.env.PATH ?? "").split(":").filter((part) => !part.includes("node_modules"));
  return { ...Object.fromEntries(kept), PATH: [dirname(process.execPath), ...path].join(":") } as Record<
    string,
    string
  >;
}

/** The base image has Node's headers under /usr/local; here they are beside this Node, or in the checkout's package. */
function headersOf(env: Readonly<Record<string, string>>): Record<string, string> {
  if (env.npm_config_nodedir === undefined) return {};
  const packaged = join(root, `node_modules/node/node_modules/node-${process.platform}-${process.arch}`);
  const found = [packaged, join(dirname(process.execPath), "..")].find((path) =>
    existsSync(join(path, "include/node/node.h")),
  );
  return found === undefined ? {} : { npm_config_nodedir: found };
}

const loadsEngines = `
  const { loadEngine } = await import("@lim/vector-index");
  for (const name of ["hnsw", "hnswlib"]) await loadEngine(name);
`;

/** The command of the target, in its folder, as far as it goes without servers. */
function tryTarget(name: string, folder: string): void {
  const instructions = wholeStage(stages, name);
  const words = (op: string): string[] => {
    const text = instructions.findLast((instruction) => instruction.op === op)?.text;
    return text === undefined ? [] : (JSON.parse(text) as string[]);
  };
  const app = join(folder, "app");
  const [program, ...args] = [
    ...words("ENTRYPOINT"),
    ...words("CMD").filter((word) => word !== "--help"),
    "--help",
  ];
  if (program !== "node") throw new Error(`${name}: starts ${program}`);
  const env = { ...cleanEnvironment(), ...envOf(instructions) };
  const help = spawnSync(process.execPath, args, { cwd: app, env, encoding: "utf8" });
  if (help.status !== 0 || help.stdout === "") throw new Error(`${name}: ${help.stderr}`);
  if (existsSync(join(app, "packages/vector-index"))) {
    const engines = spawnSync(process.execPath, ["--input-type=module", "-e", loadsEngines], {
      cwd: join(app, "index-storage"),
      env,
      encoding: "utf8",
    });
    if (engines.status !== 0) throw new Error(`${name}: engines: ${engines.stderr}`);
  }
  const bytes = (path: string) =>
    Number(execFileSync("du", ["-sk", path], { encoding: "utf8" }).split("\t")[0]) / 1024;
  const modules = bytes(join(app, "node_modules"));
  say(
    `target ${name}: its command and both engines start; ${modules.toFixed(0)} MiB of modules, ` +
      `${(bytes(app) - modules).toFixed(1)} MiB of LIM`,
  );
}

try {
  copyContext();
  for (const name of targets) {
    const stage = stages.find((candidate) => candidate.name === name);
    if (stage === undefined)
      throw new Error(`the Dockerfile has no target ${name}; it has ${finals.join(", ")}`);
    tryTarget(name, make(stage));
  }
  say("all targets are as they should be; what was not tried: an engine, its base image, users and volumes");
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
}
