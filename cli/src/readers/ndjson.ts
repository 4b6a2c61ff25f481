import type { ReadStream } from "node:fs";
import { createInterface } from "node:readline";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { toImportRow } from "./row-fields.ts";

/** One object a line: `face_id` or `external_id`, and `descriptor`. `nameless`: the descriptor is enough. */
export async function* readNdjson(
  open: () => ReadStream,
  nameless = false,
): AsyncGenerator<ImportRow | ImportFault> {
  const lines = createInterface({ input: open(), crlfDelay: Number.POSITIVE_INFINITY });
  let line = 0;
  for await (const content of lines) {
    line++;
    if (content.trim() === "") continue;
    let object: unknown;
    try {
      object = JSON.parse(content);
    } catch {
      yield { line, reason: "not JSON" };
      continue;
    }
    if (typeof object !== "object" || object === null || Array.isArray(object)) {
      yield { line, reason: "not an object" };
      continue;
    }
    const fields = object as Record<string, unknown>;
    const { face_id: faceId, external_id: externalId, descriptor } = fields;
    yield toImportRow(line, { faceId, externalId, descriptor }, nameless);
  }
}
