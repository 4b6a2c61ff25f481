import { createHash } from "node:crypto";
import { chmod, lstat, mkdir, readlink, realpath, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, sep } from "node:path";
import { LimError } from "@lim/contracts";
import { type Account, reachableBy } from "./account.ts";

/** Where root keeps what the unprivileged account could not reach in the folder asked for. */
const systemDir = "/var/lib/lim";

/** What stands in for a folder among the temporary files is temporary, too, unless those are private themselves. */
async function standInOf(realDir: string, account: Account): Promise<string> {
  const realTmp = await realpath(tmpdir());
  const name = `lim-postgres-${createHash("sha256").update(realDir).digest("hex").slice(0, 16)}`;
  const temporary =
    realDir.startsWith(`${realTmp}${sep}`) && (await reachableBy(account, realTmp, { enterOnly: true }));
  return join(temporary ? realTmp : systemDir, name);
}

/**
 * The folder that holds the database's files: `dir` itself, unless we are root and the account cannot get there (a
 * folder below a private home, whose modes are not ours to change). Then it is a folder of the system that belongs to
 * `dir`, and `dir/postgres` links to it. A folder whose link is gone was deleted by its user, so its stand-in goes too.
 */
export async function postgresHome(dir: string, account: Account | undefined): Promise<string> {
  await mkdir(dir, { recursive: true });
  if (account === undefined) return dir;
  const { mode, uid } = await stat(dir);
  if (uid === 0 && (mode & 0o001) === 0) await chmod(dir, (mode & 0o777) | 0o001);
  if (await reachableBy(account, dirname(await realpath(dir)), { enterOnly: true })) return dir;

  const link = join(dir, "postgres");
  if ((await lstat(link).catch(() => undefined))?.isSymbolicLink()) {
    const home = await readlink(link);
    await mkdir(home, { recursive: true, mode: 0o711 });
    // Among the temporary files anyone could have made it meanwhile.
    if ((await lstat(home)).uid !== 0)
      throw new LimError("bad_settings", `${home} belongs to somebody else: remove ${link}, then try again`);
    return home;
  }
  const home = await standInOf(await realpath(dir), account);
  await rm(home, { recursive: true, force: true });
  await mkdir(dirname(home), { recursive: true, mode: 0o711 });
  await mkdir(home, { mode: 0o711 });
  await symlink(home, link);
  return home;
}
