// Published indexes of this run's lists.
import { randomUUID } from "node:crypto";
import { copyFile, link, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type EngineName, type IndexMeta, indexMetaSchema } from "@lim/contracts";
import type { BenchList } from "../build/lists.ts";
import type { IndexOperations, IndexPlace } from "./index-child.ts";
import { type Run, withChild } from "./run.ts";

/** Builds the list's index in a process of its own. */
export async function publishIndex(
  run: Run,
  index: { engine: EngineName; root: string; list: BenchList },
): Promise<IndexPlace> {
  const { options, rowsPath, say } = run;
  const { engine, root, list } = index;
  const { dim, m, efConstruction } = options;
  say(`building the index of ${list.faces} faces by ${engine}`);
  const { historyId, revision } = await stateOf(run, list);
  const indexId = await withChild<IndexOperations, string>(run, "index-child", `build ${engine}`, (child) =>
    child.call("publish", {
      engine,
      rowsPath,
      dim,
      faces: list.faces,
      m,
      efConstruction,
      root,
      label: list.listId,
      historyId,
      revision,
    }),
  );
  return { root, label: list.listId, indexId };
}

/** What a published index becomes under another id: only its meta differs. */
export function metaOfCopy(
  meta: IndexMeta,
  changes: Pick<IndexMeta, "index_id" | "label" | "history_id" | "revision" | "create_time">,
): IndexMeta {
  const { meta_sha256: _, ...rest } = meta;
  return { ...rest, ...changes };
}

/**
 * Publishes an index once more, under a new id and as the newest of `list`, by one rename as the storage does. With
 * `files: "link"` that costs next to nothing, so that what is measured beside it is the matcher's work.
 */
export async function publishCopy(
  run: Run,
  from: IndexPlace,
  options: { list: BenchList; files: "copy" | "link" },
): Promise<IndexPlace> {
  const { list, files } = options;
  const source = join(from.root, from.label, from.indexId);
  const meta = indexMetaSchema.parse(JSON.parse(await readFile(join(source, "meta.json"), "utf8")));
  const { historyId, revision } = await stateOf(run, list);
  const indexId = randomUUID();
  const staging = join(from.root, ".staging", `copy-${indexId}`);
  await mkdir(staging, { recursive: true });
  for (const name of Object.keys(meta.files))
    await (files === "link" ? link : copyFile)(join(source, name), join(staging, name));
  const copy = metaOfCopy(meta, {
    index_id: indexId,
    label: list.listId,
    history_id: historyId,
    revision,
    create_time: new Date().toISOString(),
  });
  await writeFile(join(staging, "meta.json"), JSON.stringify(copy));
  await mkdir(join(from.root, list.listId), { recursive: true });
  await rename(staging, join(from.root, list.listId, indexId));
  return { root: from.root, label: list.listId, indexId };
}

async function stateOf({ db, signal }: Run, { listId }: BenchList) {
  const [state] = await db.listStates({ listIds: [listId], signal });
  if (!state) throw new Error(`no list ${listId}`);
  return state;
}
