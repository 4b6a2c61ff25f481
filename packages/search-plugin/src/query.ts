import { LimError, limits, normalize, uuidSchema } from "@lim/contracts";
import type { MatchQuery, Reference } from "./types.ts";

/** References of one call. */
export const maxReferences = 256;

export interface CheckedQuery {
  label: string;
  references: ({ vector: Float32Array } | { faceId: string })[];
  limit: number;
  threshold: number;
  timeoutMs: number;
  minRevision: number | undefined;
}

/** The query with defaults, ids folded, and descriptors as unit vectors of their own; throws bad_input. */
export function checkQuery(
  query: MatchQuery,
  settings: { dim: number; defaultTimeoutMs: number },
): CheckedQuery {
  const count = Array.isArray(query.references) ? query.references.length : 0;
  if (count < 1 || count > maxReferences)
    throw new LimError("bad_input", `references must be a list of 1 to ${maxReferences}`);
  const minRevision = query.minRevision;
  return {
    label: checkId(query.label, "label"),
    references: query.references.map((reference, at) => checkReference(reference, at, settings.dim)),
    limit: checkNumber(query.limit ?? 10, "limit", 1, limits.maxMatchLimit, true),
    threshold: checkNumber(query.threshold ?? 0, "threshold", 0, 1, false),
    timeoutMs: checkNumber(
      query.timeoutMs ?? settings.defaultTimeoutMs,
      "timeoutMs",
      1,
      limits.maxMatchTimeoutMs,
      true,
    ),
    minRevision:
      minRevision === undefined
        ? undefined
        : checkNumber(minRevision, "minRevision", 0, Number.MAX_SAFE_INTEGER, true),
  };
}

export function checkNumber(value: number, name: string, low: number, high: number, whole: boolean): number {
  if (typeof value !== "number" || !(value >= low && value <= high) || (whole && !Number.isInteger(value)))
    throw new LimError(
      "bad_input",
      `${name} must be ${whole ? "a whole number" : "a number"} from ${low} to ${high}`,
    );
  return value;
}

const canonicalUuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

function checkId(value: string, name: string): string {
  // Nearly all are, and the schema takes ten times as long to say so.
  if (typeof value === "string" && canonicalUuid.test(value)) return value;
  const parsed = uuidSchema.safeParse(value);
  if (!parsed.success) throw new LimError("bad_input", `${name} must be a UUID`);
  return parsed.data;
}

function checkReference(
  reference: Reference,
  at: number,
  dim: number,
): { vector: Float32Array } | { faceId: string } {
  const name = `references[${at}]`;
  if (typeof reference !== "object" || reference === null)
    throw new LimError("bad_input", `${name} must hold a descriptor or a faceId`);
  if ("faceId" in reference) return { faceId: checkId(reference.faceId, `${name}.faceId`) };
  if (!(reference.descriptor instanceof Float32Array))
    throw new LimError("bad_input", `${name}.descriptor must be a Float32Array`);
  const vector = reference.descriptor.slice();
  const fault = normalize(vector, dim);
  if (fault)
    throw new LimError(
      "bad_input",
      `${name}.descriptor of ${vector.length} dimensions is not usable (${fault}, ${dim} dimensions are expected)`,
    );
  return { vector };
}
