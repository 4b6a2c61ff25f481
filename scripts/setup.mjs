// Makes a fresh clone ready, then runs a command under the Node of node_modules. Zero dependencies, because it runs
// before there are any; Node >= 20, because hosts have that.
//   node scripts/setup.mjs                     only set up
//   node scripts/setup.mjs run <module> [args] set up, then run the module
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const bin = join(root, "node_modules", ".bin");
const startedMs = performance.now();
const isWindows = process.platform === "win32";

function say(message) {
  console.error(`[setup ${((performance.now() - startedMs) / 1000).toFixed(1)}s] ${message}`);
}
function fail(message) {
  say(message);
  process.exit(1);
}
function has(tool) {
  return (
    spawnSync(isWindows ? "where" : "sh", isWindows ? [tool] : ["-c", `command -v ${tool}`], {
      stdio: "ignore",
    }).status === 0
  );
}

// `npm run` leaves npm_* in the environment that describe the outer run: they must not steer a nested npm.
const env = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^npm_(config_local_prefix|config_noproxy|lifecycle|package|command|execpath)/.test(name),
  ),
);
env.TURBO_TELEMETRY_DISABLED = "1";
env.DO_NOT_TRACK = "1";

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit", env, ...options });
  if (result.error) fail(`cannot run ${command}: ${result.error.message}`);
  if (result.status !== 0) fail(`failed (${result.status ?? result.signal}): ${command} ${args.join(" ")}`);
}

/** Installs Debian packages where we may; says whether it worked. */
function aptInstall(packages) {
  if (!has("apt-get") || process.getuid?.() !== 0) return false;
  say(`apt-get install ${packages.join(" ")}`);
  // RUNLEVEL keeps the package's own service from being started.
  const aptEnv = { ...env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const install = () =>
    spawnSync("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages], {
      env: aptEnv,
      stdio: ["ignore", "ignore", "inherit"],
    }).status === 0;
  if (install()) return true;
  spawnSync("apt-get", ["update", "-qq"], { env: aptEnv, stdio: ["ignore", "ignore", "inherit"] });
  return install();
}

function checkNode() {
  const [major] = process.versions.node.split(".").map(Number);
  if (major < 20)
    fail(
      `Node ${process.versions.node} is too old: install Node 22.18 or newer (https://nodejs.org), then try again`,
    );
  if (!has("npm")) fail("npm is missing: it comes with Node, see https://nodejs.org");
}

/** What hnswlib-node, which compiles at its installation, needs and is not here. */
function missingTools() {
  if (isWindows) return [];
  return [
    ["python3", "python3"],
    ["make", "make"],
    ["c++", "g++"],
  ].filter(([tool]) => !has(tool));
}

/** Whether hnswlib-node can be compiled, in the end. Without it engine hnsw still works. */
function checkToolchain() {
  const missing = missingTools();
  if (missing.length === 0) return;
  const packages = missing.map(([, name]) => name);
  if (aptInstall(packages)) return;
  say(
    `hnswlib-node is compiled at installation and needs ${missing.map(([tool]) => tool).join(", ")}: engine hnswlib ` +
      `will not be there, and its tests are left out; engine hnsw needs no compiler.\n` +
      `  Debian, Ubuntu: sudo apt-get install ${packages.join(" ")}\n  macOS: xcode-select --install`,
  );
}

function fingerprint() {
  return createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .update(readFileSync(join(root, "package.json")))
    .update(process.platform + process.arch)
    .update(missingTools().length === 0 ? "" : "no compiler")
    .digest("hex");
}

function installDependencies() {
  const stamp = join(root, "node_modules", ".setup-stamp");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === fingerprint()) return;
  checkToolchain();
  // node-gyp would download headers: those of the `node` package are in place before any install script runs.
  const platform = process.platform === "darwin" && process.arch === "arm64" ? "node-bin" : "node";
  env.npm_config_nodedir = join(
    root,
    "node_modules",
    "node",
    "node_modules",
    `${platform}-${process.platform}-${process.arch}`,
  );
  say("npm ci (the first time takes a minute)");
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { shell: isWindows });
  writeFileSync(stamp, fingerprint());
  // It is an optional dependency: npm leaves it out where its compilation fails.
  if (!existsSync(join(root, "node_modules", "hnswlib-node")))
    say("engine hnswlib is not there: its module could not be compiled");
}

function findRedis() {
  if (process.env.REDIS_URL || has("redis-server") || has("valkey-server")) return;
  if (aptInstall(["redis-server"]) && has("redis-server")) return;
  fail(
    "Redis is needed and was not found. Either set REDIS_URL to a running server, or install it:\n" +
      "  Debian, Ubuntu: sudo apt-get install redis-server\n  macOS: brew install redis",
  );
}

function build() {
  env.PATH = bin + delimiter + env.PATH;
  const result = spawnSync(
    join(bin, "turbo"),
    ["run", "build", "--output-logs=errors-only", "--no-update-notifier"],
    {
      cwd: root,
      env,
      encoding: "utf8",
      shell: isWindows,
    },
  );
  if (result.status !== 0)
    fail(`build failed\n${result.stdout ?? ""}${result.stderr ?? ""}${result.error?.message ?? ""}`);
}

checkNode();
findRedis();
installDependencies();
build();
say("ready");

const [mode, module, ...args] = process.argv.slice(2);
if (mode === "run") {
  const child = spawn(join(bin, "node"), ["--enable-source-maps", module, ...args], {
    cwd: root,
    stdio: "inherit",
    env,
  });
  // Ctrl-C reaches the child directly, since it shares the terminal's process group; other signals are passed on.
  // The child takes repeated signals within a moment as one.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => fail(`cannot run ${module}: ${error.message}`));
  child.on("exit", (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
}
