import { lstat, mkdir } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

const privateMode = 0o700;

/**
 * A folder where Node keeps the compiled modules of a build's processes, in the system's temporary folder and only for
 * this account: what is in it is run. Undefined where there can be none; then they are compiled anew at each start.
 */
export async function openModuleCache(parent = tmpdir()): Promise<string | undefined> {
  try {
    const { uid } = userInfo();
    const path = join(parent, `lim-modules.${uid}`);
    await mkdir(path, { recursive: true, mode: privateMode });
    const found = await lstat(path);
    const isPrivate = uid < 0 || (found.uid === uid && (found.mode & 0o777) === privateMode);
    return found.isDirectory() && isPrivate ? path : undefined;
  } catch {
    return undefined;
  }
}
