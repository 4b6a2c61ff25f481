import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { extname, resolve } from "node:path";
import { LimError } from "@lim/contracts";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { f32Layout, fvecsLayout, layoutHeadBytes, npyLayout } from "./binary-layouts.ts";
import { readCsv } from "./csv.ts";
import { type RowLayout, readFixedRows } from "./fixed-rows.ts";
import { readNdjson } from "./ndjson.ts";

export const sourceFormats = ["ndjson", "csv", "npy", "fvecs", "f32"] as const;
export type SourceFormat = (typeof sourceFormats)[number];

export interface DescriptorSource {
  format: SourceFormat;
  /** Identifies path and content: the same file resumes, a changed one does not. */
  sourceKey: string;
  sizeBytes: number;
  rows: AsyncIterable<ImportRow | ImportFault>;
  /** Bytes read so far; progress by bytes needs no count of rows beforehand. */
  readBytes: () => number;
}

export interface SourceOptions {
  path: string;
  format?: SourceFormat | undefined;
  dim: number;
  /** CSV of names beside a .npy, .fvecs or .f32 file. */
  names?: string | undefined;
  /** Rows need no face id nor external id. */
  nameless?: boolean | undefined;
  signal: AbortSignal;
}

const fingerprintBytes = 1 << 20;

/** Size, both ends and the options that shape the rows: enough to tell another file from the one half imported. */
async function fingerprint(path: string, sizeBytes: number, shape: string): Promise<string> {
  const hash = createHash("sha256").update(`${shape}|${sizeBytes}|`);
  const file = await open(path, "r");
  try {
    const chunk = Buffer.alloc(Math.min(fingerprintBytes, sizeBytes));
    for (const position of new Set([0, Math.max(0, sizeBytes - chunk.length)])) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
      hash.update(chunk.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
  return hash.digest("hex");
}

/** Told from the file's ending; throws bad_input where it tells nothing. */
export function formatOf(path: string): SourceFormat {
  const ending = extname(path).toLowerCase().slice(1);
  const found = ending === "jsonl" ? "ndjson" : sourceFormats.find((format) => format === ending);
  if (found !== undefined) return found;
  throw new LimError(
    "bad_input",
    `cannot tell the format of ${path}: use --format ${sourceFormats.join("|")}`,
  );
}

/** The file as rows of one length; undefined where it is text. */
async function layoutOf(
  format: SourceFormat,
  file: { path: string; sizeBytes: number; dim: number },
): Promise<RowLayout | undefined> {
  switch (format) {
    case "f32":
      return f32Layout(file);
    case "npy":
      return npyLayout(file, await headOf(file));
    case "fvecs":
      return fvecsLayout(file, await headOf(file));
    default:
      return undefined;
  }
}

async function headOf({ path, sizeBytes }: { path: string; sizeBytes: number }): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    const head = Buffer.alloc(Math.min(layoutHeadBytes, sizeBytes));
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return head.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Opens a file of descriptors. Faults of single rows come as ImportFault; a file that cannot be read throws. */
export async function openSource(options: SourceOptions): Promise<DescriptorSource> {
  const path = resolve(options.path);
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new LimError("bad_input", `cannot read ${path}: ${cause.code ?? cause.message}`, { cause });
  });
  if (!info.isFile()) throw new LimError("bad_input", `${path} is not a file`);
  const format = options.format ?? formatOf(path);
  const layout = await layoutOf(format, { path, sizeBytes: info.size, dim: options.dim });
  if (layout === undefined && options.names !== undefined)
    throw new LimError("bad_input", "--names goes with .npy, .fvecs and .f32 files only");
  let readBytes = 0;
  const stream = (lastByte = Number.POSITIVE_INFINITY) => {
    const input = createReadStream(path, { highWaterMark: 1 << 20, end: lastByte, signal: options.signal });
    input.on("data", (chunk) => {
      readBytes += chunk.length;
    });
    return input;
  };
  const shape = `${format}|${options.dim}|${options.names ? await namesShape(options.names) : ""}`;
  return {
    format,
    sizeBytes: info.size,
    sourceKey: await fingerprint(path, info.size, shape),
    readBytes: () => readBytes,
    rows:
      layout !== undefined
        ? readFixedRows(() => stream(info.size), layout, {
            path,
            sizeBytes: info.size,
            names: options.names,
            nameless: options.nameless,
          })
        : format === "ndjson"
          ? readNdjson(stream, options.nameless)
          : readCsv(stream, options.dim, options.nameless),
  };
}

async function namesShape(names: string): Promise<string> {
  const path = resolve(names);
  const info = await stat(path).catch((cause: unknown) => {
    throw new LimError("bad_input", `cannot read ${path}`, { cause });
  });
  return fingerprint(path, info.size, "names");
}
