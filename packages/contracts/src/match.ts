import { z } from "zod";
import { LimError } from "./errors.ts";
import { uuidSchema } from "./ids.ts";
import { engineNameSchema } from "./index-meta.ts";
import { limits } from "./limits.ts";
import { errorBodySchema } from "./task.ts";

/** A match: the face and its similarity (cosine clipped to 0..1), best first in an answer. */
export const matchSchema = z.tuple([uuidSchema, z.number().min(0).max(1)]);
export type Match = z.infer<typeof matchSchema>;

export const replyStreamPrefix = "lim_reply:";

/** Fields of a match request's stream entry, but for `descriptor`, which is binary (see `encodeDescriptor`). */
export const matchRequestFieldsSchema = z
  .object({
    rid: z.string().min(1).max(128),
    limit: z.coerce.number().int().min(1).max(limits.maxMatchLimit).default(10),
    threshold: z.coerce.number().min(0).max(1).default(0),
    timeout_ms: z.coerce
      .number()
      .int()
      .min(1)
      .max(limits.maxMatchTimeoutMs)
      .default(limits.defaultMatchTimeoutMs),
    min_revision: z.coerce.number().int().nonnegative().optional(),
    response_stream: z
      .string()
      .max(256)
      .refine((name) => name.startsWith(replyStreamPrefix), `must begin with ${replyStreamPrefix}`)
      .optional(),
    response_channel: z.string().min(1).max(256).optional(),
    luna_request_id: z.string().max(128).optional(),
    traceparent: z.string().max(128).optional(),
  })
  .refine((fields) => fields.response_stream !== undefined || fields.response_channel !== undefined, {
    message: "response_stream or response_channel is required",
  });
export type MatchRequestFields = z.infer<typeof matchRequestFieldsSchema>;

export const matchTimingsSchema = z.object({
  /** Milliseconds from the entry's stream id (Redis' clock) until a matcher read it. */
  queue_ms: z.number().nonnegative(),
  search_ms: z.number().nonnegative(),
});

/** A reply: one JSON text in the field `reply` of a reply stream's entry, or the payload of a pub/sub message. */
export const matchReplySchema = z.object({
  rid: z.string(),
  /** HTTP-like: 200, or the status of the error. */
  status_code: z.int(),
  result: z.array(matchSchema),
  error: errorBodySchema.nullable(),
  index_id: uuidSchema.nullable(),
  revision: z.int().nonnegative().nullable(),
  timings: matchTimingsSchema.nullable(),
});
export type MatchReply = z.infer<typeof matchReplySchema>;

const canonicalUuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const isUuid = (value: unknown) => typeof value === "string" && canonicalUuid.test(value);
const isShare = (value: unknown) => typeof value === "number" && value >= 0 && value <= 1;
const isWhole = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isDuration = (value: unknown) => typeof value === "number" && value >= 0 && value < Infinity;

function isMatch(value: unknown): boolean {
  return Array.isArray(value) && value.length === 2 && isUuid(value[0]) && isShare(value[1]);
}

/**
 * What the schema accepts and leaves as it is, of a success as matchers write it. The schema itself takes three times as
 * long as the parsing of the text, which callers notice.
 */
function isUsualSuccess(json: unknown): json is MatchReply {
  if (typeof json !== "object" || json === null || Object.keys(json).length !== 7) return false;
  const { rid, status_code, result, error, index_id, revision, timings } = json as Partial<MatchReply>;
  return (
    typeof rid === "string" &&
    status_code === 200 &&
    Array.isArray(result) &&
    result.every(isMatch) &&
    error === null &&
    isUuid(index_id) &&
    isWhole(revision) &&
    typeof timings === "object" &&
    timings !== null &&
    Object.keys(timings).length === 2 &&
    isDuration(timings.queue_ms) &&
    isDuration(timings.search_ms)
  );
}

export function parseMatchReply(text: string): MatchReply {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new LimError("bad_input", "match reply is not JSON", { cause });
  }
  if (isUsualSuccess(json)) return json;
  const parsed = matchReplySchema.safeParse(json);
  if (!parsed.success) throw new LimError("bad_input", `match reply: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** Value of a label key: what a matcher says of the label that it serves. */
export const labelKeyValueSchema = z.object({
  index_id: uuidSchema,
  revision: z.int().nonnegative(),
  descriptor_version: z.int().nonnegative(),
  dim: z.int().positive(),
  count: z.int().nonnegative(),
  engine: engineNameSchema,
});
export type LabelKeyValue = z.infer<typeof labelKeyValueSchema>;

/** Similarity of unit vectors: their inner product clipped to 0..1. */
export function similarityOf(innerProduct: number): number {
  return innerProduct <= 0 ? 0 : innerProduct >= 1 ? 1 : innerProduct;
}
