import { createHash, randomUUID } from "node:crypto";
import { link, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * Publishes the files of an index again under a new id, as a newer index of its label, in a moment. With `spoil` its
 * index.dat is one that no engine reads, though meta.json names its hash. Returns the new id.
 */
export async function republish(
  storageRoot: string,
  label: string,
  indexId: string,
  { spoil = false } = {},
): Promise<string> {
  const from = join(storageRoot, label, indexId);
  const newId = randomUUID();
  const work = join(storageRoot, ".staging", `${newId}.test`);
  await mkdir(work, { recursive: true });
  const { meta_sha256: _, ...meta } = JSON.parse(await readFile(join(from, "meta.json"), "utf8"));
  meta.index_id = newId;
  meta.create_time = new Date().toISOString();
  for (const name of Object.keys(meta.files)) {
    if (!spoil || name !== "index.dat") {
      await link(join(from, name), join(work, name));
      continue;
    }
    const bytes = (await readFile(join(from, name))).fill(0, 16, 64);
    await writeFile(join(work, name), bytes);
    meta.files[name].sha256 = createHash("sha256").update(bytes).digest("hex");
  }
  await writeFile(join(work, "meta.json"), JSON.stringify(meta));
  await rename(work, join(storageRoot, label, newId));
  return newId;
}
