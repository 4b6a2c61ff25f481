import { readFile, realpath, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { LimError } from "@lim/contracts";

/** An unprivileged account that a root process starts Postgres under. */
export interface Account {
  uid: number;
  gid: number;
}

/** By preference; `nobody` is there on every system. */
const candidates = ["postgres", "_postgres", "nobody"];

/**
 * Postgres refuses to run as root, so root starts it as another user: the owner of the data where there is some, else
 * one that has a name, because initdb looks it up. Undefined where this process is not root: then it runs as ourselves.
 */
export async function unprivilegedAccount(dataDir?: string): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const owner = dataDir === undefined ? undefined : await stat(dataDir).catch(() => undefined);
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const rows = (await readFile("/etc/passwd", "utf8").catch(() => ""))
    .split("\n")
    .map((line) => line.split(":"));
  for (const name of candidates) {
    const row = rows.find((fields) => fields[0] === name);
    const uid = Number(row?.[2]);
    const gid = Number(row?.[3]);
    if (row && uid > 0 && gid > 0) return { uid, gid };
  }
  throw new LimError(
    "bad_settings",
    `Postgres does not run as root and none of the users ${candidates.join(", ")} exists: ` +
      "start as another user, or set DATABASE_URL to a running server",
  );
}

/**
 * Whether the account may read (or, with `enterOnly`, pass through) `path`, every parent counted; by mode bits, which
 * are what initdb dies of.
 */
export async function reachableBy(
  account: Account,
  path: string,
  options: { enterOnly?: boolean } = {},
): Promise<boolean> {
  let current = await realpath(path);
  let needed = options.enterOnly ? 0o1 : 0o5;
  for (;;) {
    const { mode, uid, gid } = await stat(current);
    const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0;
    if (((mode >> shift) & needed) !== needed) return false;
    const parent = dirname(current);
    if (parent === current) return true;
    current = parent;
    needed = 0o1;
  }
}
