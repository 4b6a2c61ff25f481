import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { defaults } from "@lim/contracts";
import { processIdentity } from "@lim/local-servers";
import { z } from "zod";
import type { CliSettings } from "./settings.ts";

/**
 * Where the servers of a running `lim up` are, kept in its home so that commands in another terminal find them. It has the
 * database's password, so only its owner may read it.
 */
const stackSchema = z.object({
  pid: z.int().positive(),
  redisUrl: z.string(),
  databaseUrl: z.string(),
  managerUrl: z.string(),
  storageRoot: z.string(),
  dim: z.int().positive(),
  descriptorVersion: z.int().nonnegative(),
});
export type RunningStack = z.infer<typeof stackSchema>;

const fileOf = (home: string) => join(home, "running.json");

/** In the file: the id of a process that was killed may be another one's by now. */
const fileSchema = stackSchema.extend({ identity: z.string() });

export async function announceStack(home: string, stack: RunningStack): Promise<void> {
  const path = fileOf(home);
  await mkdir(dirname(path), { recursive: true });
  const draft = `${path}.${process.pid}`;
  // A draft that was left would keep its mode.
  await rm(draft, { force: true });
  const identity = await processIdentity(stack.pid);
  await writeFile(draft, JSON.stringify({ ...stack, identity }), { mode: 0o600 });
  await rename(draft, path);
}

/** Only its own: another one may have been started meanwhile. */
export async function withdrawStack(home: string): Promise<void> {
  if ((await readStack(home))?.pid === process.pid) await rm(fileOf(home), { force: true });
}

/** The stack whose process runs; undefined where there is none, or its file is not to be read. */
export async function readStack(home: string): Promise<RunningStack | undefined> {
  try {
    const { identity, ...stack } = fileSchema.parse(JSON.parse(await readFile(fileOf(home), "utf8")));
    return (await processIdentity(stack.pid)) === identity ? stack : undefined;
  } catch {
    return undefined;
  }
}

/** The settings, and where they name no server at all, those of the `lim up` that runs in their home. */
export async function withRunningStack(settings: CliSettings): Promise<CliSettings> {
  const { redisUrl, databaseUrl, storageRoot, managerUrl } = settings;
  const namesAny =
    redisUrl !== undefined ||
    databaseUrl !== undefined ||
    storageRoot !== undefined ||
    managerUrl !== `http://127.0.0.1:${defaults.managerPort}`;
  const stack = namesAny ? undefined : await readStack(settings.home);
  if (stack === undefined) return settings;
  const { pid: _, ...found } = stack;
  return { ...settings, ...found };
}
