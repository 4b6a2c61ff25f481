import { type FileHandle, open, rm } from "node:fs/promises";
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
import { slicesOf } from "./slices.ts";

interface Save {
  state: IndexState;
  runInPool: RunInPool;
  signal: AbortSignal | undefined;
}

interface Written {
  header: FileHeader;
  plan: FilePlan;
  table: BigUint64Array;
}

/**
 * Writes an index to `path`; its full-precision rows, if there are any, to `rowsPath` or into the same file. Neither
 * flushes nor renames: that is the caller's. Files that could not be finished are removed. No change of the index may
 * run meanwhile. Errors: `disk_full`, `aborted`, `failed`.
 */
export async function saveIndex(
  state: IndexState,
  path: string,
  rowsPath: string | undefined,
  signal: AbortSignal | undefined,
  runInPool: RunInPool,
): Promise<void> {
  const rows = state.rowsFile === undefined ? state.layout.rows : "float32";
  if (rows === "none" && rowsPath !== undefined)
    throw badInput("the index has no full-precision rows to write to rowsPath");
  if (rowsPath === path) throw badInput("rowsPath must differ from path");
  throwIfAborted(signal);
  const save: Save = { state, runInPool, signal };
  const header = await describe(save, rows, rowsPath);
  const files: FileHandle[] = [];
  const paths: string[] = [];
  const create = async (at: string): Promise<FileHandle> => {
    const file = await open(at, "w");
    files.push(file);
    paths.push(at);
    return file;
  };
  try {
    const file = await create(path);
    const written = await writeSections(save, file, header);
    if (rowsPath !== undefined) {
      const rowsFile = await create(rowsPath);
      const rowsWritten = await writeSections(save, rowsFile, { ...header, kind: "rows" });
      rowsWritten.header.otherSum = written.header.tableSum;
      written.header.otherSum = rowsWritten.header.tableSum;
      await writeEnds(rowsFile, rowsWritten);
    }
    await writeEnds(file, written);
    throwIfAborted(signal);
    while (files.length > 0) await files.pop()?.close();
  } catch (error) {
    for (const file of files) await file.close().catch(() => {});
    for (const at of paths) await rm(at, { force: true }).catch(() => {});
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

async function writeSections(save: Save, file: FileHandle, header: FileHeader): Promise<Written> {
  const { layout, committedVersion, rowsFile } = save.state;
  const plan = planFile(header);
  const table = new BigUint64Array(plan.chunks);
  // One slice after the other: the pool's other threads go on answering searches.
  for (const { from, to } of slicesOf(plan)) {
    throwIfAborted(save.signal);
    const argument: WriteArgument = {
      what: "write",
      layout,
      fd: file.fd,
      header,
      version: committedVersion,
      from,
      to,
      rowsFile,
    };
    table.set((await save.runInPool("save-part", argument)) as BigUint64Array, from);
  }
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
