import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoReportSchema } from "@lim/contracts";
import { isProcessRunning } from "@lim/local-servers";
import { createFaceGenerator, eventually, startProcess } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lim } from "./lim-process.ts";
import { limMain } from "./support.ts";

const dim = 64;
let dir: string;
let faces: string;
let names: string;

/** A small file of descriptors as a user would bring it: 900 people, every third with a second image. */
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-demo-test-"));
  // As a temporary folder of the system would be: Postgres runs as another user where the tests run as root.
  await chmod(dir, 0o711);
  const generator = createFaceGenerator({ dim, effectiveDim: 40 });
  const rows: Float32Array[] = [];
  const lines = ["row,identity,image"];
  for (let person = 0; person < 900; person++)
    for (let image = 0; image < (person % 3 === 0 ? 2 : 1); image++) {
      lines.push(`${rows.length},P${person},P${person}_${image}.jpg`);
      rows.push(generator.vector(person, image));
    }
  faces = join(dir, "faces.f32");
  names = join(dir, "names.csv");
  await writeFile(
    faces,
    Buffer.concat(rows.map((row) => Buffer.from(row.buffer, row.byteOffset, row.byteLength))),
  );
  await writeFile(names, `${lines.join("\n")}\n`);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

// A folder for temporary files of its own keeps these runs apart from a demo that the user has running.
// Leases and keys end sooner than by default, so that the demo's own limits on failures leave a busy machine room.
const env = () => ({
  TMPDIR: dir,
  REDIS_URL: "",
  DATABASE_URL: "",
  LIM_MANAGER_LEASE_TTL_MS: "3000",
  LIM_LABEL_KEY_TTL_MS: "3000",
  LIM_LABEL_KEY_RENEW_MS: "500",
  LIM_PLANNING_SETTLE_MS: "500",
});
const demo = (report: string) => [
  "demo",
  "--faces",
  faces,
  "--names",
  names,
  "--dim",
  String(dim),
  "--report",
  report,
];
const started = (line: string) => /\((\d+)\), left by a demo that was killed/.exec(line)?.[1];

test("the demo on given descriptors holds every check and writes its report", async () => {
  const report = join(dir, "demo.json");
  const run = await lim(demo(report), env());
  expect(run.code, run.stdout + run.stderr).toBe(0);
  const written = demoReportSchema.parse(JSON.parse(await readFile(report, "utf8")));
  expect(written.ok).toBe(true);
  expect(written.checks.length).toBeGreaterThanOrEqual(12);
  expect(written.figures).toMatchObject({ failed_matches: 0, reload_failed: 0 });
  for (const [name, value] of Object.entries(written.figures)) expect(value, name).not.toBeNull();
});

test("Ctrl-C leaves nothing running; what a killed demo left is reaped by the next start", async () => {
  const report = join(dir, "interrupted.json");
  const killed = startProcess({ name: "demo", script: limMain, args: demo(report), env: env() });
  await killed.waitForLine(/building the indexes/, { timeoutMs: 120_000 });
  killed.kill("SIGKILL");
  await killed.exited;

  const next = startProcess({ name: "demo", script: limMain, args: demo(report), env: env() });
  await next.waitForLine(/starting two managers/, { timeoutMs: 120_000 });
  const reaped = next.lines.map(started).filter((pid) => pid !== undefined);
  // Redis, Postgres and six services.
  expect(reaped.length).toBeGreaterThanOrEqual(8);
  for (const pid of reaped) expect(await isProcessRunning(Number(pid)), pid).toBe(false);

  await next.waitForLine(/building the indexes/, { timeoutMs: 120_000 });
  next.kill("SIGINT");
  expect(await next.exited).toBe(130);
  const third = startProcess({ name: "demo", script: limMain, args: demo(report), env: env() });
  await third.waitForLine(/starting Redis/, { timeoutMs: 120_000 });
  expect(third.lines.map(started).filter((pid) => pid !== undefined)).toEqual([]);
  third.kill("SIGINT");
  await third.exited;
  await eventually("its report is not written", () => !killed.lines.join().includes("report:") || undefined);
});

test("wrong use is told with the remedy and exit code 2", async () => {
  const run = await lim(["demo", "--faces", faces], env());
  expect(run.code).toBe(2);
  expect(run.stderr).toContain("--faces and --names go together");
  const wrongDim = await lim([...demo(join(dir, "x.json")), "--dim", "63"], env());
  expect(wrongDim.code).toBe(2);
  expect(wrongDim.stderr).toContain("rows of 63 numbers");
});
