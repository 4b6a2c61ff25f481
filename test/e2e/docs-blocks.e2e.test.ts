import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { connectSql, findOnPath } from "@lim/local-servers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Block, blocksOf, languageOf, pages, placeOf, root } from "../docs/blocks.ts";
import { runnableOf } from "../docs/commands.ts";
import { dim, type Given, prepare } from "../docs/given.ts";
import { startTestStack, type TestStack } from "./support.ts";

/** For a block that hangs; a machine under load is given time. */
const blockLimitMs = 240_000;
let stack: TestStack;
let given: Given;
let env: Record<string, string>;

/** One stack with an indexed list `staff` for all pages: what a reader has who did as README says. */
beforeAll(async () => {
  given = await prepare();
  stack = await startTestStack({ dim, minListSize: 1_000_000 });
  const [manager] = await Promise.all([
    stack.start("index-manager"),
    stack.start("indexer"),
    stack.start("indexed-matcher"),
  ]);
  env = {
    PATH: `${given.bin}:${process.env.PATH}`,
    HOME: process.env.HOME ?? given.folder,
    REDIS_URL: stack.redis.url,
    DATABASE_URL: stack.databaseUrl,
    LIM_MANAGER_URL: manager.url,
    LIM_STORAGE_ROOT: stack.storageRoot,
  };
  await run(
    "npx lim import faces.ndjson --list staff && npx lim tasks create staff --watch",
    "what every page takes for granted",
  );
  env.DOCS_LIST_ID = (await stack.db.findListByName({ name: "staff" }))?.listId ?? "";
});
afterAll(async () => {
  await stack?.stop();
  await given?.remove();
});

async function run(script: string, place: string): Promise<string> {
  const child = promisify(execFile)("sh", ["-ec", script], { cwd: given.folder, env, timeout: blockLimitMs });
  const { stdout } = await child.catch((error: Error & { stdout: string; stderr: string }) => {
    throw new Error(`${place}: ${error.message}\n${error.stdout}${error.stderr}`);
  });
  return stdout;
}

/** Names that a program in a page uses and its reader has. */
const givenNames: Readonly<Record<string, () => string>> = {
  listId: () => "const listId: string = process.env.DOCS_LIST_ID ?? '';",
  descriptor: () => `const descriptor = Float32Array.from(${JSON.stringify(given.descriptor)});`,
};

function programOf({ text }: Block): string {
  const needed = Object.entries(givenNames).filter(
    ([name]) => new RegExp(`\\b${name}\\b`).test(text) && !new RegExp(`\\b(const|let) ${name}\\b`).test(text),
  );
  return `${needed.map(([, line]) => line()).join("\n")}\n${text}\nexport {};\n`;
}

async function runProgram(block: Block): Promise<void> {
  const name = `${basename(block.file, ".md")}-${block.line}.${block.language}`;
  await writeFile(join(given.folder, name), programOf(block));
  const config = {
    extends: "../../tsconfig.base.json",
    compilerOptions: {
      composite: false,
      incremental: false,
      declaration: false,
      declarationMap: false,
      noEmit: true,
      noUnusedLocals: false,
      noUncheckedIndexedAccess: false,
    },
    files: [name],
  };
  await writeFile(join(given.folder, "tsconfig.json"), JSON.stringify(config));
  if (block.language === "ts") await run("npx tsc -p tsconfig.json", placeOf(block));
  await run(`node ${name}`, placeOf(block));
}

async function runSql(block: Block): Promise<void> {
  const sql = await connectSql(stack.databaseUrl);
  try {
    // For the other pages' sake nothing of it stays.
    await sql.query(`BEGIN; ${block.text}; ROLLBACK`);
  } finally {
    await sql.close();
  }
}

const settingsOf: Readonly<Record<string, { service: string; portEnv: string }>> = {
  "manager.yaml": { service: "index-manager", portEnv: "LIM_MANAGER_PORT" },
  "indexer.yaml": { service: "indexer", portEnv: "LIM_INDEXER_PORT" },
  "matcher.yaml": { service: "indexed-matcher", portEnv: "LIM_MATCHER_PORT" },
};

/** The service named by the first line reads it. One fault on purpose keeps it from starting: it is the only one. */
async function readSettings(block: Block): Promise<void> {
  const file = /^# (\S+)\n/.exec(block.text)?.[1] ?? "";
  const known = settingsOf[file];
  if (known === undefined)
    throw new Error(`${placeOf(block)}: begin it with # ${Object.keys(settingsOf).join(", # ")}`);
  await writeFile(join(given.folder, file), block.text);
  const main = join(root, "apps", known.service, "dist/main.js");
  const { stderr, code } = await promisify(execFile)(process.execPath, [main, "--settings", file], {
    cwd: given.folder,
    env: { ...env, [known.portEnv]: "none" },
  }).then(
    () => ({ stderr: "", code: 0 }),
    (error: { stderr: string; code: number }) => error,
  );
  expect(code, placeOf(block)).toBe(2);
  expect(stderr.trim().split("\n").slice(1), placeOf(block)).toEqual([
    expect.stringContaining(known.portEnv),
  ]);
}

async function tryBlock(block: Block): Promise<void> {
  const language = languageOf(block);
  if (language === "sh") {
    const script = runnableOf(block.text, placeOf(block));
    if (/\bcurl\b/.test(script) && (await findOnPath(["curl"])) === undefined)
      console.warn(`${placeOf(block)}: not run, there is no curl here`);
    else if (script !== "") await run(script, placeOf(block));
  } else if (language === "ts" || language === "js") await runProgram(block);
  else if (language === "sql") await runSql(block);
  else if (language === "yaml") await readSettings(block);
  else if (language === "json") JSON.parse(block.text);
}

test.each(pages().filter((page) => blocksOf(page).some(({ language }) => language !== "text")))(
  "the blocks of %s do what they say",
  async (page) => {
    for (const block of blocksOf(page)) await tryBlock(block);
  },
);

test("a block that fails names its place", async () => {
  const block = { file: "x.md", line: 7, language: "sh", text: "npx lim tasks show nothing\n" };
  await expect(tryBlock(block)).rejects.toThrow(/^x\.md:7: /);
  await expect(tryBlock({ ...block, language: "sql", text: "SELECT 1 FROM nothing" })).rejects.toThrow(
    "nothing",
  );
  await expect(
    tryBlock({ ...block, language: "yaml", text: "# manager.yaml\nlist: dynamic\n" }),
  ).rejects.toThrow();
  await expect(tryBlock({ ...block, language: "ts", text: "const x: string = 1;" })).rejects.toThrow(
    /TS2322/,
  );
});
