import { randomUUID } from "node:crypto";
import { readFile, rm, statfs, writeFile } from "node:fs/promises";
import { arch, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { type EngineName, engineNames } from "@lim/contracts";
import { loadEngine } from "@lim/vector-index";
import { bytesText, type Finding, fail, ok, reasonOf, skip, warn } from "./finding.ts";

const leastNode = [22, 18] as const;
const leastTemporaryBytes = 1 << 30;
const tmpfsType = 0x01021994;
/** Instruction sets that the engines' inner loops gain from, as Linux names them. */
const simdFlags = ["avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx", "sse4_1", "asimddp", "asimd"];

export function judgeNode(version: string = process.versions.node): Finding {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor, leastMinor] = leastNode;
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor))
    return ok("node", `Node ${version}, ${process.platform} ${arch()}`);
  return fail(
    "node",
    `Node ${version} is too old for engine hnsw`,
    `run Node ${leastNode.join(".")} or newer; npm run setup puts one into node_modules`,
  );
}

export async function probeTemporary(folder: string = tmpdir()): Promise<Finding[]> {
  const path = join(folder, `lim-doctor-${randomUUID()}`);
  const remedy = "let TMPDIR name a writable folder with room for the largest index";
  try {
    await writeFile(path, Buffer.alloc(1 << 16));
  } catch (thrown) {
    return [fail("tmpdir", `${folder} takes no file: ${reasonOf(thrown)}`, remedy)];
  } finally {
    await rm(path, { force: true }).catch(() => {});
  }
  const { bavail, bsize, type } = await statfs(folder);
  const free = bavail * bsize;
  const text = `${folder}: ${bytesText(free)} free${type === tmpfsType ? ", in memory (tmpfs)" : ""}`;
  return [free >= leastTemporaryBytes ? ok("tmpdir", text) : warn("tmpdir", text, remedy)];
}

/** The engine of new indexes must load; another one may be missing. */
export async function probeEngine(name: EngineName, wanted: EngineName): Promise<Finding[]> {
  const check = `engine.${name}`;
  try {
    const { version } = await loadEngine(name);
    const how =
      name === "hnsw"
        ? `WebAssembly relaxed SIMD on shared memory; processor: ${await simdOfProcessor()}`
        : "native module";
    return [ok(check, `hnsw${name === "hnsw" ? "" : "lib"} ${version} builds and searches: ${how}`)];
  } catch (thrown) {
    if (name !== wanted)
      return [
        skip(check, `does not load (${reasonOf(thrown)}); LIM_ENGINE is ${wanted}, so nothing needs it`),
      ];
    const remedy =
      name === "hnsw"
        ? "run Node 22.18 or newer; npm run build makes the engine's module"
        : "npm rebuild hnswlib-node (needs g++, make, python3), or LIM_ENGINE=hnsw";
    return [fail(check, `does not load: ${reasonOf(thrown)}`, remedy)];
  }
}

export const probeEngines = async (wanted: EngineName): Promise<Finding[]> =>
  (await Promise.all(engineNames.toReversed().map((name) => probeEngine(name, wanted)))).flat();

async function simdOfProcessor(): Promise<string> {
  const model = cpus()[0]?.model.trim() || arch();
  const text = await readFile("/proc/cpuinfo", "utf8").catch(() => "");
  const flags = new Set((/^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? "").split(" "));
  const found = simdFlags.filter((flag) => flags.has(flag));
  return found.length > 0 ? `${model} (${found.join(", ")})` : model;
}

/** Offsets of this machine's clock, milliseconds ahead; undefined where the server did not answer. */
export function judgeClocks(offsets: {
  redisMs: number | undefined;
  postgresMs: number | undefined;
}): Finding[] {
  const known = Object.entries({ Redis: offsets.redisMs, Postgres: offsets.postgresMs }).filter(
    (entry): entry is [string, number] => entry[1] !== undefined,
  );
  if (known.length === 0)
    return [skip("clock", "nothing to compare with: neither Redis nor Postgres answered")];
  const texts = known.map(([name, ms]) => `${Math.abs(ms) < 1 ? 0 : Math.round(ms)} ms ahead of ${name}`);
  const text = `this machine's clock is ${texts.join(", ")}`;
  const values = known.map(([, ms]) => ms);
  const spread = Math.max(0, ...values) - Math.min(0, ...values);
  if (spread <= clockToleranceMs) return [ok("clock", text)];
  return [
    warn(
      "clock",
      `${text}: times of tasks, of retention and of log lines do not fit together`,
      "let all machines keep time by NTP (chrony, systemd-timesyncd)",
    ),
  ];
}
const clockToleranceMs = 1_000;
