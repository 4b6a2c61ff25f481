import { readdir, stat } from "node:fs/promises";
import { LimError } from "@lim/contracts";
import { exists, isMissing, syncPath, writeDurably } from "./files.ts";
import type { Layout } from "./layout.ts";

function away(layout: Layout, cause: unknown): unknown {
  if (!isMissing(cause)) return cause;
  return new LimError("storage_unavailable", `${layout.root} is away or no index storage: is it mounted?`, {
    cause,
  });
}

/**
 * Throws `storage_unavailable` where the root is not there, or is the bare folder of a volume that is not mounted: to
 * find nothing in such a place says nothing, and nothing must be written there.
 */
export async function assertThere(layout: Layout): Promise<void> {
  try {
    await stat(layout.removed);
  } catch (thrown) {
    throw away(layout, thrown);
  }
}

/** Names of all removal marks. Throws `storage_unavailable` as `assertThere`. */
export async function markNames(layout: Layout): Promise<string[]> {
  try {
    return await readdir(layout.removed);
  } catch (thrown) {
    throw away(layout, thrown);
  }
}

/** Whether an id has a removal mark. Throws `storage_unavailable` as `assertThere`. */
export async function isMarked(layout: Layout, indexId: string): Promise<boolean> {
  if (await exists(layout.mark(indexId))) return true;
  await assertThere(layout);
  return false;
}

export async function mark(layout: Layout, indexId: string): Promise<void> {
  await assertThere(layout);
  await writeDurably(layout.mark(indexId), "");
  await syncPath(layout.removed);
}
