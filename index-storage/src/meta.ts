import { createHash } from "node:crypto";
import { constants, open, stat } from "node:fs/promises";
import { join } from "node:path";
import { type IndexMeta, indexMetaFormatVersion, indexMetaSchema, LimError } from "@lim/contracts";
import { exists, isMissing, storageError } from "./files.ts";
import { dataFilesOf, fileNames, type Layout, sizeOf, storageLimits } from "./layout.ts";
import type { PublishedIndex } from "./port.ts";

async function readBounded(path: string): Promise<string> {
  // Without waiting: opening a pipe that lies there would otherwise hold one of the process' few file threads for ever.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    if (!found.isFile()) throw new LimError("index_refused", `${fileNames.meta} is no file`);
    const { size } = found;
    if (size > storageLimits.maxMetaBytes)
      throw new LimError("index_refused", `${fileNames.meta} has ${size} bytes, too many`);
    return await handle.readFile("utf8");
  } finally {
    await handle.close();
  }
}

function metaDigest(fields: object): string {
  return createHash("sha256").update(JSON.stringify(fields)).digest("hex");
}

/** Text of meta.json, sealed by a hash of its own. */
export function formatMeta(meta: Omit<IndexMeta, "meta_sha256">): string {
  return `${JSON.stringify({ ...meta, meta_sha256: metaDigest(meta) }, undefined, 2)}\n`;
}

/** Validates the text of meta.json against its format and the folder that holds it. Throws `index_refused`. */
export function parseMeta(text: string, label: string, indexId: string): IndexMeta {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new LimError("index_refused", `${fileNames.meta} is corrupt: not JSON`, { cause });
  }
  const version = (json as { format_version?: unknown } | null)?.format_version;
  if (typeof version === "number" && version > indexMetaFormatVersion)
    throw new LimError(
      "index_refused",
      `too new: format version ${version}, this build reads up to ${indexMetaFormatVersion}; upgrade it`,
    );
  const parsed = indexMetaSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LimError(
      "index_refused",
      `${fileNames.meta} is corrupt: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`,
    );
  }
  const { meta_sha256: sealed, ...meta } = parsed.data;
  const { meta_sha256: _, ...fields } = json as Record<string, unknown>;
  if (sealed !== undefined && sealed !== metaDigest(fields))
    throw new LimError("index_refused", `${fileNames.meta} is corrupt: its hash differs`);
  if (meta.index_id !== indexId || meta.label !== label)
    throw new LimError(
      "index_refused",
      `foreign: meta says ${meta.label}/${meta.index_id}, its folder ${label}/${indexId}`,
    );
  if (meta.count < 1 || meta.count > meta.slots)
    throw new LimError(
      "index_refused",
      `${fileNames.meta} is corrupt: ${meta.count} faces in ${meta.slots} positions`,
    );
  if (meta.files[fileNames.ids].size !== meta.slots * 16)
    throw new LimError(
      "index_refused",
      `${fileNames.meta} is corrupt: size of ${fileNames.ids} does not fit its slots`,
    );
  return meta;
}

/** Throws `index_refused` where a data file is not as long as meta says, the file system's error where one is missing. */
async function checkSizes(folder: string, meta: IndexMeta): Promise<void> {
  for (const { name, size: expected } of dataFilesOf(meta.files)) {
    const { size } = await stat(join(folder, name));
    if (size !== expected)
      throw new LimError(
        "index_refused",
        `${name} is ${size < expected ? "truncated" : "extended"}: ${size} bytes, not ${expected}`,
      );
  }
}

/**
 * Meta and sizes of a published index; with `known`, only the sizes. Undefined where its folder is not there (any
 * more); `index_refused` where the folder is there and does not hold a whole index.
 */
export async function readPublished(
  layout: Layout,
  label: string,
  indexId: string,
  known?: PublishedIndex,
): Promise<PublishedIndex | undefined> {
  const folder = layout.index(label, indexId);
  try {
    const meta = known?.meta ?? parseMeta(await readBounded(join(folder, fileNames.meta)), label, indexId);
    await checkSizes(folder, meta);
    return known ?? { indexId, label, meta, sizeBytes: sizeOf(meta.files) };
  } catch (thrown) {
    if (!isMissing(thrown)) throw storageError(thrown, `reading index ${indexId}`);
    if (!(await exists(folder))) return undefined;
    throw new LimError("index_refused", `a file is missing in ${label}/${indexId}`, { cause: thrown });
  }
}
