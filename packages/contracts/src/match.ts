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
const maxIdChars = 128;
const maxDestinationChars = 256;
const defaultLimit = 10;

/** Fields of a match request's stream entry, but for `descriptor`, which is binary (see `encodeDescriptor`). */
export const matchRequestFieldsSchema = z
  .object({
    rid: z.string().min(1).max(maxIdChars),
    limit: z.coerce.number().int().min(1).max(limits.maxMatchLimit).default(defaultLimit),
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
      .max(maxDestinationChars)
      .refine((name) => name.startsWith(replyStreamPrefix), `must begin with ${replyStreamPrefix}`)
      .optional(),
    response_channel: z.string().min(1).max(maxDestinationChars).optional(),
    luna_request_id: z.string().max(maxIdChars).optional(),
    traceparent: z.string().max(maxIdChars).optional(),
  })
  .refine((fields) => fields.response_stream !== undefined || fields.response_channel !== undefined, {
    message: "response_stream or response_channel is required",
  });
export type MatchRequestFields = z.infer<typeof matchRequestFieldsSchema>;

/** A match request's fields as they were sent; what is absent is undefined. */
export type MatchRequestTexts = { [Name in keyof MatchRequestFields]: string | undefined };

/** As the schema coerces; NaN where the number is not whole, or out of bounds. */
function wholeOf(text: string | undefined, fallback: number, low: number, high: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  return Number.isSafeInteger(value) && value >= low && value <= high ? value : Number.NaN;
}

const isShort = (text: string | undefined) => text === undefined || text.length <= maxIdChars;

/**
 * What the schema makes of fields that it accepts, in a fraction of its time; undefined where there is more to say, which
 * is the schema's to do. `min_revision` and the like are absent where they were not sent.
 */
export function usualMatchFields(texts: MatchRequestTexts): MatchRequestFields | undefined {
  const { rid, response_stream, response_channel, luna_request_id, traceparent } = texts;
  const limit = wholeOf(texts.limit, defaultLimit, 1, limits.maxMatchLimit);
  const timeoutMs = wholeOf(texts.timeout_ms, limits.defaultMatchTimeoutMs, 1, limits.maxMatchTimeoutMs);
  const threshold = texts.threshold === undefined ? 0 : Number(texts.threshold);
  const minRevision = wholeOf(texts.min_revision, 0, 0, Number.MAX_SAFE_INTEGER);
  const isUsual =
    rid !== undefined &&
    rid.length >= 1 &&
    rid.length <= maxIdChars &&
    response_stream !== undefined &&
    response_stream.length <= maxDestinationChars &&
    response_stream.startsWith(replyStreamPrefix) &&
    response_channel === undefined &&
    threshold >= 0 &&
    threshold <= 1 &&
    isShort(luna_request_id) &&
    isShort(traceparent);
  if (!isUsual || Number.isNaN(limit + timeoutMs + minRevision)) return undefined;
  const fields: MatchRequestFields = { rid, limit, threshold, timeout_ms: timeoutMs, response_stream };
  if (texts.min_revision !== undefined) fields.min_revision = minRevision;
  if (luna_request_id !== undefined) fields.luna_request_id = luna_request_id;
  if (traceparent !== undefined) fields.traceparent = traceparent;
  return fields;
}

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
