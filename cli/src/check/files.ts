import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { IndexMeta } from "@lim/contracts";
import { checkLimits } from "./limits.ts";
import { type Finding, finding } from "./report.ts";

export const metaFile = "meta.json";

export const folderOf = (root: string, label: string, indexId: string) => join(root, label, indexId);

/** What a published index's folder and meta say beyond the hashes, which the storage verifies. */
export async function judgeFolder(folder: string, meta: Pick<IndexMeta, "files">): Promise<Finding[]> {
  const expected = new Set([metaFile, ...Object.keys(meta.files)]);
  const foreign = (await readdir(folder)).filter((name) => !expected.has(name)).toSorted();
  const found: Finding[] = [];
  if (foreign.length > 0)
    found.push(
      finding("warning", "foreign_files", `${foreign.length} files in the folder are not the index's`, {
        numbers: { files: foreign.length },
        examples: foreign.slice(0, checkLimits.maxNamed),
        remedy: "look who wrote them; the index itself does not read them",
      }),
    );
  // The storage has compared it, where there is one, and hands it on to nobody.
  const text = JSON.parse(await readFile(join(folder, metaFile), "utf8")) as object;
  if (!("meta_sha256" in text))
    found.push(
      finding("info", "meta_unsealed", "meta.json has no checksum of its own: it is of an early version"),
    );
  return found;
}
