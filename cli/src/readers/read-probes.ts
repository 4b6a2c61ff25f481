import { readFile, stat } from "node:fs/promises";
import { extname, resolve } from "node:path";
import { LimError } from "@lim/contracts";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { openSource, sourceFormats } from "./read-rows.ts";
import { toImportRow } from "./row-fields.ts";

/** What `lim import` reads, and small files of JSON or text with one descriptor or a few. */
export const probeFormats = [...sourceFormats, "json", "text"] as const;
export type ProbeFormat = (typeof probeFormats)[number];

/** Of a file of JSON or text, which is read at once. */
const maxTextBytes = 64 * 1024 * 1024;

/** One descriptor to search for. */
export interface Probe {
  /** The row's id, else its number (1-based). */
  name: string;
  vector: Float32Array;
}

/** Rows of the file, each a probe or the reason why it is none. Names are not needed. */
export async function readProbes(options: {
  path: string;
  format?: ProbeFormat | undefined;
  dim: number;
  signal: AbortSignal;
}): Promise<AsyncIterable<Probe | ImportFault>> {
  const { path, dim, signal } = options;
  const format = options.format ?? textFormatOf(path);
  if (format === "json" || format === "text") return probesOf(await readText(resolve(path), format), dim);
  return probesOf((await openSource({ path, format, dim, signal, nameless: true })).rows, dim);
}

function textFormatOf(path: string): ProbeFormat | undefined {
  const ending = extname(path).toLowerCase();
  return ending === ".json" ? "json" : ending === ".txt" ? "text" : undefined;
}

async function* probesOf(
  rows: AsyncIterable<ImportRow | ImportFault> | Iterable<ImportRow | ImportFault>,
  dim: number,
): AsyncGenerator<Probe | ImportFault> {
  for await (const row of rows) {
    if ("reason" in row) yield row;
    else if (row.vector.length !== dim)
      yield { line: row.line, reason: `has ${row.vector.length} numbers instead of ${dim}: wrong --dim?` };
    else yield { name: row.externalId ?? row.faceId ?? String(row.line), vector: row.vector };
  }
}

/** JSON: a descriptor, an object with one, or a list of either. Text: the numbers of one descriptor. */
async function readText(path: string, format: "json" | "text"): Promise<(ImportRow | ImportFault)[]> {
  const cannotRead = (reason: string, cause?: unknown) =>
    new LimError("bad_input", `cannot read ${path}: ${reason}`, { cause });
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw cannotRead(cause.code ?? cause.message, cause);
  });
  if (info.size > maxTextBytes)
    throw cannotRead(`larger than ${maxTextBytes} bytes; use ${sourceFormats.join(", ")}`);
  const text = (await readFile(path, "utf8")).trim();
  if (format === "text") return [toImportRow(1, { descriptor: text }, true)];
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw cannotRead("it is not JSON (of lines of JSON the ending is .ndjson)", cause);
  }
  const items: unknown[] = Array.isArray(json) && typeof json[0] !== "number" ? json : [json];
  return items.map((item, i) => {
    const isNamed = typeof item === "object" && item !== null && "descriptor" in item;
    if (!isNamed) return toImportRow(i + 1, { descriptor: item }, true);
    const fields = item as Record<string, unknown>;
    const { face_id: faceId, external_id: externalId, descriptor } = fields;
    return toImportRow(i + 1, { faceId, externalId, descriptor }, true);
  });
}
