import { decodeVector, uuidSchema } from "@lim/contracts";
import type { ImportFault, ImportRow } from "@lim/faces-db";

const maxExternalIdChars = 512;

/** Numbers as an array, as text separated by spaces, commas or semicolons, or float32 little-endian in base64. */
export function parseVector(value: unknown): Float32Array | string {
  if (Array.isArray(value)) {
    const vector = new Float32Array(value.length);
    for (let i = 0; i < value.length; i++) {
      if (typeof value[i] !== "number") return `descriptor[${i}] is not a number`;
      vector[i] = value[i];
    }
    return vector;
  }
  if (typeof value !== "string" || value.trim() === "") return "descriptor is missing";
  const text = value.trim();
  if (/[\s,;]/.test(text)) {
    const parts = text.replace(/^\[|\]$/g, "").split(/[\s,;]+/);
    const vector = new Float32Array(parts.length);
    for (let i = 0; i < parts.length; i++) {
      const number = Number(parts[i]);
      if (parts[i] === "" || Number.isNaN(number)) return `descriptor[${i}] is not a number`;
      vector[i] = number;
    }
    return vector;
  }
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return "descriptor is neither numbers nor base64";
  const bytes = Buffer.from(text, "base64");
  if (bytes.length === 0 || bytes.length % 4 !== 0)
    return `descriptor has ${bytes.length} bytes, not dim × 4`;
  return decodeVector(bytes);
}

/** Who a row is of; both may be given. */
export interface RowName {
  faceId?: string;
  externalId?: string;
}

/** The row's name, or why it has none. `nameless`: it needs none. */
export function toRowName(
  line: number,
  fields: { faceId?: unknown; externalId?: unknown },
  nameless = false,
): RowName | ImportFault {
  const faceId = text(fields.faceId);
  const externalId = text(fields.externalId);
  if (faceId === undefined && externalId === undefined)
    return nameless ? {} : { line, reason: "neither face_id nor external_id" };
  if (externalId !== undefined && externalId.length > maxExternalIdChars)
    return { line, reason: `external_id is longer than ${maxExternalIdChars} characters` };
  const named = externalId === undefined ? {} : { externalId };
  if (faceId === undefined) return named;
  const parsed = uuidSchema.safeParse(faceId);
  if (!parsed.success) return { line, reason: `face_id "${faceId.slice(0, 60)}" is not a UUID` };
  return { ...named, faceId: parsed.data };
}

/** A row of the import, or why it is none. Whether the vector is usable (length, norm) is judged by the importer. */
export function toImportRow(
  line: number,
  fields: { faceId?: unknown; externalId?: unknown; descriptor: unknown },
  nameless = false,
): ImportRow | ImportFault {
  const vector = parseVector(fields.descriptor);
  if (typeof vector === "string") return { line, reason: vector };
  const name = toRowName(line, fields, nameless);
  return "reason" in name ? name : { line, vector, ...name };
}

function text(value: unknown): string | undefined {
  if (typeof value === "number") return String(value);
  return typeof value === "string" && value !== "" ? value : undefined;
}
