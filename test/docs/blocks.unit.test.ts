import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { blocksOf, languageOf, pages, root } from "./blocks.ts";
import { runnableOf } from "./commands.ts";

test.each(pages())("every block of %s is marked with a language that a test knows", (page) => {
  for (const block of blocksOf(page)) languageOf(block);
});

test("a block without a mark, of an unknown language or without an end is a fault", () => {
  const [unmarked] = blocksOf("x.md", "a\n```\nls\n```\n");
  expect(unmarked).toEqual({ file: "x.md", line: 2, language: "", text: "ls\n" });
  for (const language of ["", "bash", "python"])
    expect(() => languageOf({ file: "x.md", line: 2, language, text: "" })).toThrow(
      /x\.md:2: .*use one of sh/,
    );
  expect(() => blocksOf("x.md", "```sh\nls\n")).toThrow("x.md:1: the block has no end");
});

test("commands that are tested elsewhere are left out, all others stay", () => {
  expect(runnableOf("# first\nnpm run demo   # a minute\nnpx lim queue\n", "x")).toBe(
    "# first\n\nnpx lim queue".replace("\n\n", "\n"),
  );
  expect(runnableOf("npm start      # until Ctrl-C\n", "x")).toBe("");
  expect(runnableOf("npm install lim\n", "x")).toBe("npm install lim");
});

test("an exception for a script that is gone is a fault", () => {
  expect(() => runnableOf("npm run bench:nothing\n", "x.md:1")).toThrow(
    'x.md:1: package.json has no script "bench:nothing"',
  );
});

/** Headings as anchors: small letters, spaces as hyphens, other signs left out. */
const anchorsOf = (source: string) =>
  [...source.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );

test.each(pages())("every link of %s leads to a file and a heading that are there", (page) => {
  const source = readFileSync(join(root, page), "utf8").replace(/^```[\s\S]*?^```/gm, "");
  for (const [, target = "", anchor] of source.matchAll(/\]\(([^)#\s]*)(?:#([^)\s]*))?\)/g)) {
    if (/^https?:/.test(target)) continue;
    const path = target === "" ? join(root, page) : join(root, dirname(page), target);
    expect(existsSync(path), `${page}: ${target}`).toBe(true);
    if (anchor !== undefined)
      expect(anchorsOf(readFileSync(path, "utf8")), `${page}: ${target}#${anchor}`).toContain(anchor);
  }
});

test.each([
  "README.md",
  "docs/operations.md",
  "docs/index-manager.md",
  "docs/indexer.md",
  "docs/indexed-matcher.md",
])("every metric that %s names is one", (page) => {
  const known = readFileSync(join(root, "docs/metrics.md"), "utf8");
  for (const [name] of readFileSync(join(root, page), "utf8").matchAll(
    /\blim_(?:manager|indexer|matcher)_[a-z_]+/g,
  ))
    if (name !== "lim_manager_master") expect(known, name).toContain(`\`${name}\``);
});
