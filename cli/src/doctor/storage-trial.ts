import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const trialBytes = 1 << 20;
const trialPrefix = ".doctor.";
/** Trials of runs that were killed are removed at this age. */
const staleTrialMs = 3_600_000;
/** Renames over a file that is read meanwhile. */
const renames = 32;

/** What a folder cannot do that publishing an index rests on; undefined where it can do all. */
export type TrialFault = { step: "write" | "sync" | "rename" | "replace" | "read back"; reason: string };

/**
 * Tries in a folder of its own inside `root`, which it removes, what publishing does: write, fsync, rename a folder,
 * refuse a rename onto one that is not empty, and replace a file under a reader who must always find a whole one.
 */
export async function tryStorage(root: string): Promise<TrialFault | undefined> {
  await removeStaleTrials(root);
  const trial = join(root, `${trialPrefix}${randomUUID()}`);
  let step: TrialFault["step"] = "write";
  try {
    await mkdir(join(trial, "before"), { recursive: true });
    const bytes = randomBytes(trialBytes);
    await writeFile(join(trial, "before", "probe"), bytes);
    step = "sync";
    await sync(join(trial, "before", "probe"));
    await sync(join(trial, "before"));
    step = "rename";
    await rename(join(trial, "before"), join(trial, "after"));
    await sync(trial);
    if ((await readdir(trial)).join() !== "after")
      return { step, reason: "the folder has two names after it" };
    if (await replacesFullFolder(trial)) return { step, reason: "a folder that is not empty was replaced" };
    step = "read back";
    if (!(await readFile(join(trial, "after", "probe"))).equals(bytes))
      return { step, reason: "other bytes came back" };
    step = "replace";
    const reason = await replaceUnderReader(trial);
    return reason === undefined ? undefined : { step, reason };
  } catch (thrown) {
    return { step, reason: thrown instanceof Error ? thrown.message : String(thrown) };
  } finally {
    await rm(trial, { recursive: true, force: true, maxRetries: 3 }).catch(() => {});
  }
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function replacesFullFolder(trial: string): Promise<boolean> {
  await mkdir(join(trial, "other"));
  await writeFile(join(trial, "other", "file"), "x");
  return rename(join(trial, "other"), join(trial, "after")).then(
    () => true,
    () => false,
  );
}

/** Why a reader met something else than a whole file while it was replaced again and again. */
async function replaceUnderReader(trial: string): Promise<string | undefined> {
  const target = join(trial, "target");
  const content = (n: number) => Buffer.alloc(4096, n % 256);
  await writeFile(target, content(0));
  let isDone = false;
  const replacing = (async () => {
    for (let n = 1; n <= renames; n++) {
      await writeFile(join(trial, "next"), content(n));
      await rename(join(trial, "next"), target);
    }
  })().finally(() => {
    isDone = true;
  });
  let reason: string | undefined;
  while (!isDone && reason === undefined)
    reason = await readFile(target).then(
      (bytes) =>
        bytes.length === 4096 && bytes.every((byte) => byte === bytes[0])
          ? undefined
          : "a reader met half a file",
      (thrown: unknown) => `a reader met no file: ${String(thrown)}`,
    );
  await replacing;
  return reason;
}

async function removeStaleTrials(root: string): Promise<void> {
  for (const name of await readdir(root)) {
    if (!name.startsWith(trialPrefix)) continue;
    const path = join(root, name);
    const found = await stat(path).catch(() => undefined);
    if (found && Date.now() - found.mtimeMs > staleTrialMs)
      await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
