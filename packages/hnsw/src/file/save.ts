import { type FileHandle, open, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { asHnswError, badInput, HnswError, throwIfAborted } from "../errors.ts";
import type { IndexState, RunInPool } from "../index-state.ts";
import {
  encodeEnd,
  encodeHeader,
  type FileHeader,
  type FileKind,
  type FilePlan,
  planFile,
} from "./format.ts";
import type { SumArgument, Survey, SurveyArgument, WriteArgument } from "./messages.ts";
import { inParallel, slicesOf } from "./slices.ts";

export interface SaveTarget {
  path: string;
  rowsPath?: string | undefined;
  /** Spooled rows were saved before: their file is whole and stays as it is. */
  isSaved?: boolean;
}

interface SaveHost {
  runInPool: RunInPool;
  /** Slices written at the same time; searches go before them. */
  threads: number;
  signal: AbortSignal | undefined;
}

interface Save extends SaveHost {
  state: IndexState;
}

interface Written {
  header: FileHeader;
  plan: FilePlan;
  table: BigUint64Array;
}

/**
 * Writes an index to `path`; its full-precision rows, if there are any, to `rowsPath` or into the same file. Where
 * `rowsPath` is the file they were spooled to, it is completed in place (`inPlace`). Neither flushes nor renames:
 * that is the caller's. Files that could not be finished are removed, but for that one. No change of the index may run
 * meanwhile. Errors: `bad_input`, `disk_full`, `aborted`, `failed`.
 */
export async function saveIndex(
  state: IndexState,
  { path, rowsPath, isSaved = false }: SaveTarget,
  host: SaveHost,
): Promise<{ inPlace: boolean }> {
  const { rowsFile } = state;
  const rows = rowsFile === undefined ? state.layout.rows : "float32";
  if (rows === "none" && rowsPath !== undefined)
    throw badInput("the index has no full-precision rows to write to rowsPath");
  if (rowsPath === path) throw badInput("rowsPath must differ from path");
  const isOwn = (at: string | undefined) => at !== undefined && resolve(at) === resolve(rowsFile?.path ?? "");
  const inPlace = rowsFile?.mode === "spooled" && !isSaved && isOwn(rowsPath);
  if (rowsFile !== undefined && (isOwn(path) || (isOwn(rowsPath) && !inPlace)))
    throw badInput("a file of rows that is in use is not written to");
  throwIfAborted(host.signal);
  const save: Save = { ...host, state };
  const header = await describe(save, rows, rowsPath);
  const files: FileHandle[] = [];
  const created: string[] = [];
  const openFor = async (at: string, isNew: boolean): Promise<FileHandle> => {
    const file = await open(at, isNew ? "w" : "r+");
    files.push(file);
    if (isNew) created.push(at);
    return file;
  };
  try {
    const file = await openFor(path, true);
    const written = await writeSections(save, file, header, false);
    if (rowsPath !== undefined) {
      const rowsHandle = await openFor(rowsPath, !inPlace);
      const rowsWritten = await writeSections(save, rowsHandle, { ...header, kind: "rows" }, inPlace);
      // Rows that were not written whole may lie behind those that count.
      if (inPlace) await rowsHandle.truncate(rowsWritten.plan.tableAt);
      rowsWritten.header.otherSum = written.header.tableSum;
      written.header.otherSum = rowsWritten.header.tableSum;
      await writeEnds(rowsHandle, rowsWritten);
    }
    await writeEnds(file, written);
    throwIfAborted(host.signal);
    while (files.length > 0) await files.pop()?.close();
    return { inPlace };
  } catch (error) {
    for (const file of files) await file.close().catch(() => {});
    for (const at of created) await rm(at, { force: true }).catch(() => {});
    throw asHnswError(error);
  }
}

async function describe(
  save: Save,
  rows: FileHeader["rows"],
  rowsPath: string | undefined,
): Promise<FileHeader> {
  const { layout, used, committedVersion } = save.state;
  const argument: SurveyArgument = { what: "survey", used, version: committedVersion };
  const survey = (await save.runInPool("save-part", argument)) as Survey;
  const kind: FileKind = "index";
  return {
    kind,
    dim: layout.dim,
    metric: layout.metric,
    m: layout.m,
    efConstruction: layout.efConstruction,
    seed: layout.seed,
    rows,
    rowsPlace: rows === "none" ? "none" : rowsPath === undefined ? "same" : "separate",
    slots: used,
    ...survey,
    tableSum: 0n,
    otherSum: 0n,
  };
}

async function writeSections(
  save: Save,
  file: FileHandle,
  header: FileHeader,
  inPlace: boolean,
): Promise<Written> {
  const { layout, committedVersion, rowsFile } = save.state;
  const plan = planFile(header);
  const table = new BigUint64Array(plan.chunks);
  await inParallel(save, [...slicesOf(plan)], async ({ from, to }) => {
    const argument: WriteArgument = {
      what: "write",
      layout,
      fd: file.fd,
      header,
      version: committedVersion,
      from,
      to,
      rowsFile,
      inPlace,
    };
    table.set((await save.runInPool("save-part", argument)) as BigUint64Array, from);
  });
  const argument: SumArgument = { what: "sum", table };
  const tableSum = (await save.runInPool("save-part", argument)) as bigint;
  return { header: { ...header, tableSum }, plan, table };
}

/** The header comes last: a file that was not finished has none. */
async function writeEnds(file: FileHandle, { header, plan, table }: Written): Promise<void> {
  const bytes = encodeHeader(header, plan);
  await writeAll(file, new Uint8Array(table.buffer), plan.tableAt);
  await writeAll(file, encodeEnd(bytes), plan.endAt);
  await writeAll(file, bytes, 0);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    if (bytesWritten === 0) throw new HnswError("failed", "a write to a file took nothing");
    done += bytesWritten;
  }
}
