import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const run = promisify(execFile);
const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const isThere = async (shell: string) =>
  run(shell, ["--version"]).then(
    () => true,
    () => false,
  );
const [hasBash, hasFish] = await Promise.all([isThere("bash"), isThere("fish")]);
let dir: string;
const scripts = new Map<string, string>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-completion-"));
  await writeFile(join(dir, "faces.npy"), "");
  await Promise.all(
    ["bash", "zsh", "fish"].map(async (shell) => {
      const path = join(dir, `lim.${shell}`);
      const { stdout } = await run(process.execPath, [main, "completion", shell]);
      await writeFile(path, stdout);
      scripts.set(shell, path);
    }),
  );
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** The line before the cursor, and what stands there afterwards or is offered. */
const cases: [string, string[]][] = [
  ["lim ta", ["tasks"]],
  ["lim tasks cr", ["create"]],
  ["lim tasks create --mo", ["--mode"]],
  ["lim tasks create --mode ", ["rebuild", "update"]],
  // Its default subcommand's.
  ["lim tasks --statu", ["--statuses"]],
  ["lim indexes remove --o", ["--outdated"]],
  // The value of an option leads nowhere else.
  ["lim match --list tasks --face", ["--face"]],
  ["lim import x --format f", ["f32", "fvecs"]],
  ["lim import face", ["faces.npy"]],
  ["lim completion ", ["bash", "fish", "zsh"]],
];

test.skipIf(!hasBash)("bash completes commands, options and their values", async () => {
  const lines = cases.map(([line]) => {
    const words = line.split(" ").map((word) => `'${word}'`);
    return `COMP_WORDS=(${words.join(" ")}); COMP_CWORD=${words.length - 1}; _lim; echo "\${COMPREPLY[*]}"`;
  });
  const script = `set -u; source ${scripts.get("bash")}; ${lines.join("\n")}\ncomplete -p lim`;
  const { stdout } = await run("bash", ["--norc", "-c", script], { cwd: dir });
  const replies = stdout.trimEnd().split("\n");
  expect(replies.pop()).toContain("_lim lim");
  expect(replies.map((reply) => reply.split(" ").toSorted())).toEqual(cases.map(([, wanted]) => wanted));
});

test.skipIf(!hasFish)("fish completes the same", async () => {
  const lines = cases.map(([line]) => `echo (complete -C '${line}' | string replace -r '\\t.*' '')`);
  const script = `source ${scripts.get("fish")}\n${lines.join("\n")}`;
  const { stdout } = await run("fish", ["--no-config", "-c", script], { cwd: dir });
  const replies = stdout.trimEnd().split("\n");
  expect(replies.map((reply) => reply.split(" ").toSorted())).toEqual(cases.map(([, wanted]) => wanted));
});

test("another shell is wrong use", async () => {
  await expect(run(process.execPath, [main, "completion", "tcsh"])).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining("must be bash, zsh, fish"),
  });
});
