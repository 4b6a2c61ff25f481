import { type FileHandle, open, rm } from "node:fs/promises";
import { asHnswError, badInput, HnswError, throwIfAborted } from "../errors.ts";
import type { IndexState, LoadHost, RunInPool } from "../index-state.ts";
import { type Layout, layOut, memoryBytesFor, writeControl } from "../layout.ts";
import { type LoadedRowsOption, rowsOf } from "../options.ts";
import {
  checkEnd,
  decodeHeader,
  endBytes,
  type FileHeader,
  type FileKind,
  type FilePlan,
  headerBytes,
} from "./format.ts";
import type { ReadArgument, TableArgument, ValidateArgument } from "./messages.ts";
import { entryAt } from "./place.ts";
import { refusal } from "./refusal.ts";
import { inParallel, type Slice, slicesOf } from "./slices.ts";

/** Slots that a thread walks before it is asked again. */
const validateSlots = 4096;

export interface LoadOptions {
  /** As of the file if not given. */
  rows: LoadedRowsOption | undefined;
  rowsPath: string | undefined;
  capacity: number | undefined;
  signal: AbortSignal | undefined;
  /** Whether full-precision rows are searched for what is not a finite number; default true. */
  checkRows?: boolean | undefined;
}

interface OpenFile {
  file: FileHandle;
  header: FileHeader;
  plan: FilePlan;
}

interface Load {
  runInPool: RunInPool;
  threads: number;
  layout: Layout;
  signal: AbortSignal | undefined;
}

/**
 * Loads a file that `saveIndex` wrote: sizes are checked first, then threads read the sections to their places and
 * verify their checksums there, then every count, link and level is walked. Nothing is usable before that. Live slots
 * come back with born = 0 and died = 0xffffffff, free ones with the words of a free slot. That keys are unique is left
 * to whoever maps them. Errors: `refused`, `bad_input`, `full` (more than 4 GiB hold), `aborted`, `failed`.
 */
export async function loadIndex(path: string, options: LoadOptions, host: LoadHost): Promise<IndexState> {
  const { rows, rowsPath, signal } = options;
  const opened: FileHandle[] = [];
  let rowsFile: FileHandle | undefined;
  const held = rows === undefined ? undefined : rowsOf(rows, rowsPath).file;
  const working = held?.mode === "private" ? held.path : undefined;
  if (working !== undefined && (working === path || working === rowsPath))
    throw badInput("the working file must differ from the files that are loaded");
  try {
    throwIfAborted(signal);
    const index = await openChecked(path, "index", opened);
    const source = await rowsSource(index, options, opened);
    const { header } = index;
    const layout = layOutFor(header, options, host.instances);
    const memory = host.takeMemory(
      memoryBytesFor(layout, Math.min(layout.maxSlots, Math.max(header.slots, options.capacity ?? 1, 1))),
    );
    writeControl(memory, layout);
    if (working !== undefined) rowsFile = await open(working, "w");
    const load: Load = {
      runInPool: host.open(memory, layout, held),
      threads: host.threads,
      layout,
      signal,
    };
    await readSections(load, index, source === index, rowsFile?.fd, options);
    if (source !== undefined && source !== index)
      await readSections(load, source, true, rowsFile?.fd, options);
    await validateAll(load, header);
    if (header.live > 0) {
      const level = BigInt(Math.min(header.entryLevel, layout.levels));
      Atomics.store(
        new BigUint64Array(memory.buffer, entryAt, 1),
        0,
        (level << 32n) | BigInt(header.entrySlot + 1),
      );
    }
    await rowsFile?.close();
    rowsFile = undefined;
    return { memory, layout, used: header.slots, committedVersion: 0, rowsFile: held };
  } catch (error) {
    if (rowsFile !== undefined && working !== undefined) {
      await rowsFile.close().catch(() => {});
      await rm(working, { force: true }).catch(() => {});
    }
    throw asHnswError(error);
  } finally {
    for (const file of opened) await file.close().catch(() => {});
  }
}

async function openChecked(path: string, kind: FileKind, opened: FileHandle[]): Promise<OpenFile> {
  const file = await open(path, "r");
  opened.push(file);
  const stat = await file.stat();
  if (!stat.isFile())
    throw refusal(kind === "index" ? "not an index" : "not a file of rows", "it is no file");
  const bytes = await readAt(file, 0, Math.min(headerBytes, stat.size));
  const { header, plan } = decodeHeader(bytes, kind, stat.size);
  checkEnd(await readAt(file, plan.endAt, endBytes), bytes);
  return { file, header, plan };
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, position + done);
    if (bytesRead === 0) throw refusal("truncated", "it became shorter while it was read");
    done += bytesRead;
  }
  return bytes;
}

/** The file that holds the rows that are wanted; none if none are. Refuses what the file cannot give. */
async function rowsSource(
  index: OpenFile,
  options: LoadOptions,
  opened: FileHandle[],
): Promise<OpenFile | undefined> {
  const { header } = index;
  const wanted = options.rows ?? header.rows;
  if (wanted === "none") return undefined;
  if (header.rows === "none") throw refusal("rows", "full-precision rows are wanted, and the file has none");
  if (header.rows === "float16" && wanted !== "float16")
    throw refusal("rows", "float32 rows are wanted, and the file has float16");
  const inPlace = typeof wanted === "object" && "inPlace" in wanted;
  if (header.rowsPlace === "same" && inPlace)
    throw refusal("rows", "they are wanted in a file of their own, and are in the index file");
  if (header.rowsPlace === "same") return index;
  if (options.rowsPath === undefined)
    throw refusal("rows", 'they are in a file of their own: give rowsPath, or rows: "none"');
  const source = await openChecked(options.rowsPath, "rows", opened);
  const same = { ...source.header, kind: "index", tableSum: header.tableSum, otherSum: header.otherSum };
  const fits = Object.entries(header).every(([name, value]) => same[name as keyof FileHeader] === value);
  if (!fits || source.header.tableSum !== header.otherSum || source.header.otherSum !== header.tableSum)
    throw refusal("rows", "the file of rows belongs to another index");
  return source;
}

function layOutFor(header: FileHeader, options: LoadOptions, instances: number): Layout {
  const { dim, metric, m, efConstruction, seed } = header;
  const wanted = options.rows ?? header.rows;
  const rows = typeof wanted === "object" ? "none" : wanted;
  const layout = layOut({ dim, metric, m, efConstruction, seed, rows, instances });
  if (header.slots > layout.maxSlots)
    throw new HnswError(
      "full",
      `the file has ${header.slots} slots, where 4 GiB hold ${layout.maxSlots} with rows "${rows}"`,
    );
  return layout;
}

async function readSections(
  load: Load,
  source: OpenFile,
  withRows: boolean,
  rowsFd: number | undefined,
  options: LoadOptions,
): Promise<void> {
  const { header, plan } = source;
  const { layout } = load;
  const { fd } = source.file;
  const tableArgument: TableArgument = { what: "table", fd, header };
  const table = (await load.runInPool("load-part", tableArgument)) as BigUint64Array;
  await inParallel(load, [...slicesOf(plan, ({ name }) => withRows || name !== "rows")], ({ from, to }) => {
    const argument: ReadArgument = {
      what: "read",
      layout,
      fd,
      header,
      from,
      to,
      sums: table.slice(from, to),
      rowsFd,
      checkRows: options.checkRows ?? true,
    };
    return load.runInPool("load-part", argument);
  });
}

async function validateAll(load: Load, header: FileHeader): Promise<void> {
  const slices: Slice[] = [];
  for (let from = 0; from < Math.max(1, header.slots); from += validateSlots)
    slices.push({ from, to: Math.min(header.slots, from + validateSlots) });
  await inParallel(load, slices, ({ from, to }) => {
    const argument: ValidateArgument = { what: "validate", layout: load.layout, header, from, to };
    return load.runInPool("load-part", argument);
  });
}
