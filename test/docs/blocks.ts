import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));

export const languages = ["sh", "ts", "js", "sql", "yaml", "json", "text"] as const;
export type Language = (typeof languages)[number];

/** A fenced block of a page. */
export interface Block {
  /** Path from the root. */
  file: string;
  /** Of the opening fence, from 1. */
  line: number;
  /** What follows the fence; must be one of `languages`. */
  language: string;
  text: string;
}

/** README and everything under docs. */
export function pages(): string[] {
  return ["README.md", ...globSync("docs/**/*.md", { cwd: root }).sort()];
}

/** The blocks of a page in their order. Throws where a fence is not closed. */
export function blocksOf(file: string, source = readFileSync(join(root, file), "utf8")): Block[] {
  const blocks: Block[] = [];
  let open: Block | undefined;
  for (const [index, line] of source.split("\n").entries()) {
    const fence = /^\s*```(.*)$/.exec(line)?.[1];
    if (fence === undefined) {
      if (open !== undefined) open.text += `${line}\n`;
    } else if (open === undefined) open = { file, line: index + 1, language: fence.trim(), text: "" };
    else {
      blocks.push(open);
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`${open.file}:${open.line}: the block has no end`);
  return blocks;
}

export const placeOf = ({ file, line }: Block): string => `${file}:${line}`;

/** A language that no test knows would be a block that no test runs. */
export function languageOf(block: Block): Language {
  const language = languages.find((known) => known === block.language);
  if (language === undefined)
    throw new Error(
      `${placeOf(block)}: the block is marked "${block.language}": use one of ${languages.join(", ")} (text: diagrams and output)`,
    );
  return language;
}
