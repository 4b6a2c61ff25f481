import { readdir, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { EngineName } from "@lim/contracts";
import { defaults } from "@lim/contracts";
import { loadEngine } from "@lim/vector-index";
import { bytesText, type Finding, fail, ok, warn } from "./finding.ts";
import { type TrialFault, trialBytes, tryStorage } from "./storage-trial.ts";

const leastFreeBytes = 1 << 30;

export interface StorageQuestion {
  root: string;
  /** Whether the root is a setting, and not where `lim up` will make one. */
  isSet: boolean;
  dim: number;
  engine: EngineName;
  /** Faces of the largest list, where it is known. */
  largestList: number | undefined;
}

export async function probeStorage(question: StorageQuestion): Promise<Finding[]> {
  const { root, isSet } = question;
  const found = await stat(root).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) {
    if (found.code !== "ENOENT")
      return [fail("storage", `${root}: ${found.message}`, "mount it, or let this user read it")];
    if (isSet)
      return [fail("storage", `there is no folder ${root}`, "mkdir it, mount it, or mend LIM_STORAGE_ROOT")];
    const parent = await nearestFolder(root);
    return [
      ok("storage", `${root} is not there yet: lim up makes it`),
      ...(await writableAndRoomy(parent, question)),
    ];
  }
  if (!found.isDirectory()) return [fail("storage", `${root} is no folder`, "mend LIM_STORAGE_ROOT")];
  return [await judgeContent(root), ...(await writableAndRoomy(root, question))];
}

async function judgeContent(root: string): Promise<Finding> {
  const names = (await readdir(root)).filter((name) => !name.startsWith(".doctor.") && name !== "lost+found");
  if (names.includes(".staging")) {
    const [ours, staging] = await Promise.all([stat(root), stat(join(root, ".staging"))]);
    if (ours.dev === staging.dev) return ok("storage", `index storage ${root}`);
    return fail(
      "storage",
      `${root}/.staging lies on another file system: publishing renames out of it`,
      "have the whole storage on one file system",
    );
  }
  if (names.length === 0)
    return warn(
      "storage",
      `${root} is empty`,
      "right before the first start; else the storage is not mounted, or LIM_STORAGE_ROOT names another folder",
    );
  return fail(
    "storage",
    `${root} holds other things than an index storage (${names.slice(0, 3).join(", ")})`,
    "let LIM_STORAGE_ROOT name the storage, or an empty folder",
  );
}

async function nearestFolder(path: string): Promise<string> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const found = await stat(folder).catch(() => undefined);
    if (found || folder === dirname(folder)) return folder;
  }
}

async function writableAndRoomy(folder: string, question: StorageQuestion): Promise<Finding[]> {
  return [...judgeTrial(folder, await tryStorage(folder)), await judgeRoom(folder, question)];
}

export function judgeTrial(folder: string, fault: TrialFault | undefined): Finding[] {
  if (fault === undefined)
    return [
      ok("storage.write", `writable: ${bytesText(trialBytes)} written, synced and read back`),
      ok("storage.rename", "renames are atomic: tried with a folder, and with a file under a reader"),
    ];
  const { step, reason } = fault;
  if (/ENOSPC|EDQUOT/.test(reason))
    return [
      fail(
        "storage.write",
        `the disk of ${folder} is full (${reason})`,
        "free space: lim indexes remove --outdated --dry-run, lim retention; removed indexes go after 10 to 15 minutes",
      ),
    ];
  if (step === "rename" || step === "replace")
    return [
      fail(
        "storage.rename",
        `renames in ${folder} are not atomic: ${reason}`,
        "put the storage on a POSIX file system: a local disk, or NFS v4; no object store mounted as a folder",
      ),
    ];
  return [
    fail(
      "storage.write",
      `cannot ${step} in ${folder}: ${reason}`,
      "let the services' user write there; see whether the file system is mounted read-only",
    ),
  ];
}

/** What a build of the largest list needs beside the index that it replaces; at least a round figure. */
export async function neededBytes({ dim, engine, largestList = 0 }: StorageQuestion): Promise<number> {
  const params = { m: defaults.m, efConstruction: defaults.efConstruction };
  const adapter = await loadEngine(engine).catch(() => undefined);
  const graph = adapter?.estimateMemoryBytes({ dim, capacity: largestList, params, spooled: true }) ?? 0;
  return Math.max(leastFreeBytes, graph + largestList * (dim * 4 + 16));
}

async function judgeRoom(folder: string, question: StorageQuestion): Promise<Finding> {
  const { bavail, bsize, blocks, files, ffree } = await statfs(folder);
  const freeBytes = bavail * bsize;
  if (files > 0 && ffree === 0)
    return fail("storage.space", "the file system has no inode left", "remove files that nobody needs");
  const text = `${bytesText(freeBytes)} of ${bytesText(blocks * bsize)} free`;
  const needed = await neededBytes(question);
  if (freeBytes >= needed) return ok("storage.space", text);
  const why =
    question.largestList === undefined || needed === leastFreeBytes
      ? `below ${bytesText(needed)}`
      : `a build of the largest list (${question.largestList.toLocaleString("en-US")} faces) takes up to ${bytesText(needed)}`;
  const remedy = "free space: lim indexes remove --outdated --dry-run, lim retention; or a larger disk";
  return freeBytes < trialBytes
    ? fail("storage.space", `${text}: full`, remedy)
    : warn("storage.space", `${text}: ${why}`, remedy);
}
