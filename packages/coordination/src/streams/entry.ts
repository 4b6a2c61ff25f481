import {
  descriptorHeaderBytes,
  limits,
  type MatchRequestTexts,
  matchRequestFieldsSchema,
  replyStreamPrefix,
  usualMatchFields,
} from "@lim/contracts";
import type { MatchEntry } from "../port.ts";

/** What one entry may weigh, all fields together; the largest honest one is a descriptor of `maxDim` and short texts. */
const maxEntryBytes = 64 * 1024;
const maxDescriptorBytes = descriptorHeaderBytes + limits.maxDim * 4;
const maxRidChars = 128;
const maxDestinationChars = 256;
const textNames = [
  "rid",
  "label",
  "limit",
  "threshold",
  "timeout_ms",
  "min_revision",
  "response_stream",
  "response_channel",
  "luna_request_id",
  "traceparent",
] as const;
type Texts = MatchRequestTexts & { label: string | undefined };

/** Names of fields as they arrive, by their length: to compare bytes takes less than to make a text of each. */
const namesByLength: { name: (typeof textNames)[number] | "descriptor"; bytes: Buffer }[][] = [];
for (const name of [...textNames, "descriptor"] as const) {
  namesByLength[name.length] ??= [];
  namesByLength[name.length]?.push({ name, bytes: Buffer.from(name) });
}

function nameOf(bytes: Buffer): (typeof textNames)[number] | "descriptor" | undefined {
  for (const known of namesByLength[bytes.length] ?? []) {
    let i = 0;
    while (i < bytes.length && bytes[i] === known.bytes[i]) i++;
    if (i === bytes.length) return known.name;
  }
  return undefined;
}

export interface Destination {
  stream: string | undefined;
  channel: string | undefined;
}

/** An entry as it was read: id, and field and value in turn. */
export type RawEntry = readonly [id: Buffer, fields: readonly Buffer[] | null];

/** An entry that this consumer has read and not yet answered or let go. */
export interface HeldEntry extends MatchEntry {
  destination: Destination;
  /** `performance.now()` at which its idle time was last known to be zero. */
  touchedAtMs: number;
}

/** Times are milliseconds; `redisNowMs` and `localNowMs` are one moment by Redis' clock and by performance.now(). */
export function parseEntry(input: {
  label: string;
  entryId: string;
  fields: readonly Buffer[];
  deliveries: number;
  redisNowMs: number;
  localNowMs: number;
}): HeldEntry {
  const { texts, descriptor, fault = labelFault(input.label, texts.label) } = readFields(input.fields);
  const request = requestOf(texts, descriptor, fault);
  const timeoutMs = "fields" in request ? request.fields.timeout_ms : limits.defaultMatchTimeoutMs;
  // An id of the future (a caller that chose its own) must not live longer than one of now.
  const waitedMs = Math.max(0, input.redisNowMs - msOfEntryId(input.entryId));
  return {
    label: input.label,
    entryId: input.entryId,
    deliveries: input.deliveries,
    waitedMs,
    deadlineMs: input.localNowMs + timeoutMs - waitedMs,
    rid: "fields" in request ? request.fields.rid : bounded(texts.rid, maxRidChars),
    request,
    destination: destinationOf(texts),
    touchedAtMs: input.localNowMs,
  };
}

function requestOf(
  texts: Texts,
  descriptor: Buffer | undefined,
  fault: string | undefined,
): MatchEntry["request"] {
  if (fault !== undefined) return { invalid: fault };
  const fields = usualMatchFields(texts);
  if (fields && descriptor !== undefined) return { fields, descriptor };
  const parsed = matchRequestFieldsSchema.safeParse(texts);
  return parsed.success && descriptor !== undefined
    ? { fields: parsed.data, descriptor }
    : { invalid: faultOf(parsed.error?.issues, descriptor) };
}

export function msOfEntryId(entryId: string): number {
  return Number.parseInt(entryId, 10);
}

/** Where an answer may go, even when the rest of the entry is refused; never to a key that is no reply stream. */
function destinationOf(texts: Texts): Destination {
  const stream = bounded(texts.response_stream, maxDestinationChars);
  return {
    stream: stream?.startsWith(replyStreamPrefix) ? stream : undefined,
    channel: bounded(texts.response_channel, maxDestinationChars),
  };
}

/** Callers need not name the label; one who names another is not answered from this one's list. */
function labelFault(ofStream: string, named: string | undefined): string | undefined {
  if (named === undefined || named === ofStream || named.toLowerCase() === ofStream) return undefined;
  return "label: differs from the label of the stream";
}

function bounded(text: string | undefined, maxChars: number): string | undefined {
  return text !== undefined && text.length > 0 && text.length <= maxChars ? text : undefined;
}

function readFields(fields: readonly Buffer[]): {
  texts: Texts;
  descriptor: Buffer | undefined;
  fault: string | undefined;
} {
  const texts: Texts = {
    rid: undefined,
    label: undefined,
    limit: undefined,
    threshold: undefined,
    timeout_ms: undefined,
    min_revision: undefined,
    response_stream: undefined,
    response_channel: undefined,
    luna_request_id: undefined,
    traceparent: undefined,
  };
  let descriptor: Buffer | undefined;
  let fault: string | undefined;
  let bytes = 0;
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const key = fields[i] as Buffer;
    const value = fields[i + 1] as Buffer;
    bytes += key.length + value.length;
    const name = nameOf(key);
    if (name === "descriptor") {
      if (value.length > maxDescriptorBytes)
        fault = `descriptor has ${value.length} bytes, at most ${maxDescriptorBytes} are allowed`;
      else descriptor ??= value;
    } else if (name !== undefined && value.length <= maxEntryBytes) texts[name] ??= value.toString();
  }
  if (bytes > maxEntryBytes) fault = `entry has ${bytes} bytes, at most ${maxEntryBytes} are allowed`;
  return { texts, descriptor, fault };
}

function faultOf(
  issues: readonly { path: readonly PropertyKey[]; message: string }[] | undefined,
  descriptor: Buffer | undefined,
): string {
  const first = issues?.[0];
  if (first) return `${first.path.map(String).join(".") || "entry"}: ${first.message}`;
  return descriptor === undefined ? "descriptor: missing" : "entry failed validation";
}
