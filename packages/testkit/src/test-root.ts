import { chmod, lstat, mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isProcessRunning } from "@lim/local-servers";

/**
 * One folder for all test runs of this user, so that the next run finds (and ends) the servers that a killed run left.
 * Folders below it are named by the process that made them.
 */
export async function testRoot(): Promise<string> {
  const uid = process.getuid?.() ?? 0;
  const root = join(tmpdir(), `lim-test-${uid}`);
  await mkdir(root, { recursive: true });
  const stats = await lstat(root);
  if (!stats.isDirectory() || (process.getuid && stats.uid !== uid))
    throw new Error(`${root} belongs to somebody else: remove it, or set TMPDIR`);
  await chmod(root, 0o711);
  return root;
}

export async function makeRunFolder(): Promise<string> {
  return mkdtemp(join(await testRoot(), `${process.pid}-`));
}

/** Folders whose process is gone. */
export async function removeDeadFolders(): Promise<void> {
  const root = await testRoot();
  for (const name of await readdir(root)) {
    const owner = Number(/^(\d+)-/.exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(owner) || (await isProcessRunning(owner))) continue;
    await rm(join(root, name), { recursive: true, force: true, maxRetries: 5 });
  }
}
