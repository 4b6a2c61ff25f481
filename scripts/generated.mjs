// What the scripts that generate pages share.
import { existsSync, globSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** A Markdown table; cells may hold any text of one line. */
export function table(heads, rows) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(heads), `|${"---|".repeat(heads.length)}`, ...rows.map(line)].join("\n");
}

/** Ends the script with 1 where README or a page of docs names something that `pattern` finds and `isKnown` does not know. */
export function checkNames(pattern, isKnown) {
  let faults = 0;
  for (const file of ["README.md", ...globSync("docs/*.md", { cwd: root }).toSorted()])
    for (const [at, line] of readFileSync(join(root, file), "utf8").split("\n").entries())
      for (const [name] of line.matchAll(pattern)) {
        if (isKnown(name)) continue;
        faults++;
        console.error(`${file}:${at + 1}: there is no ${name}`);
      }
  if (faults > 0) process.exit(1);
}

/** Writes `files` (path → text) where the script was given --write; else ends it with 1 where one of them differs. */
export function check(script, files) {
  const args = process.argv.slice(2);
  const write = args[0] === "--write";
  if (args.length > (write ? 1 : 0)) {
    console.error(`usage: node scripts/${script}.mjs [--write]`);
    process.exit(2);
  }
  let faults = 0;
  for (const [file, text] of Object.entries(files)) {
    const path = join(root, file);
    const committed = existsSync(path) ? readFileSync(path, "utf8") : "";
    if (committed === text) continue;
    if (write) writeFileSync(path, text);
    else {
      faults++;
      console.error(`${file} has drifted at ${firstDifference(committed, text)}`);
    }
  }
  if (faults > 0) console.error(`remedy: node scripts/${script}.mjs --write, look at the diff, commit it`);
  console.log(
    `${script}: ${Object.keys(files).length} files ${write ? "written" : "checked"}, ${faults} faults`,
  );
  process.exit(faults === 0 ? 0 : 1);
}

/** Where a committed text first differs from what it should be. */
export function firstDifference(committed, text) {
  const [were, are] = [committed.split("\n"), text.split("\n")];
  const at = are.findIndex((line, i) => line !== were[i]);
  const line = at < 0 ? are.length : at;
  return `line ${line + 1}: "${(were[line] ?? "(end)").trim()}" should be "${(are[line] ?? "(end)").trim()}"`;
}
