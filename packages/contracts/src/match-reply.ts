// Replies as the bytes of their JSON text. A usual success is written and read byte by byte: by way of strings and JSON
// it costs several times as much, and a saturated matcher and its callers do little else.
import { type Match, type MatchReply, parseMatchReply } from "./match.ts";

const uuidChars = 36;
/** Similarities are written to eight decimals: what float32 tells apart from 0.125 on. */
const shareDecimals = 8;
const shareScale = 10 ** shareDecimals;
/** Durations are written to the microsecond. */
const durationDecimals = 3;
const durationScale = 10 ** durationDecimals;
const maxDurationMs = 1_000_000;
/** Numbers of so many digits are read exactly by one division. */
const maxDigits = 15;
const powersOfTen = Array.from({ length: maxDigits + 1 }, (_, i) => 10 ** i);

const parts = {
  rid: Buffer.from('{"rid":"'),
  result: Buffer.from('","status_code":200,"result":['),
  match: Buffer.from('["'),
  similarity: Buffer.from('",'),
  indexId: Buffer.from('],"error":null,"index_id":"'),
  revision: Buffer.from('","revision":'),
  queueMs: Buffer.from(',"timings":{"queue_ms":'),
  searchMs: Buffer.from(',"search_ms":'),
  end: Buffer.from("}}"),
};
const numberBytes = 17;
const fixedBytes =
  Object.values(parts).reduce((sum, { length }) => sum + length, 0) + uuidChars + 3 * numberBytes;
const matchBytes = parts.match.length + uuidChars + parts.similarity.length + numberBytes;

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const dash = 0x2d;
const dot = 0x2e;
const zero = 0x30;
const closing = 0x5d;

const bytesWhere = (isTrue: (code: number) => boolean) =>
  Uint8Array.from({ length: 256 }, (_, code) => (isTrue(code) ? 1 : 0));
/** What stands in a JSON text as it is: printable ASCII but for quotation mark and backslash. */
const isPlain = bytesWhere((code) => code >= 0x20 && code < 0x7f && code !== quote && code !== backslash);
const isLowerHex = bytesWhere((code) => /[0-9a-f]/.test(String.fromCharCode(code)));

function isPlainText(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (isPlain[text.charCodeAt(i)] !== 1) return false;
  return true;
}

function isUsual({ rid, status_code, result, error, index_id, revision, timings }: MatchReply): boolean {
  return (
    status_code === 200 &&
    error === null &&
    index_id !== null &&
    index_id.length === uuidChars &&
    Number.isSafeInteger(revision) &&
    timings !== null &&
    timings.queue_ms >= 0 &&
    timings.queue_ms < maxDurationMs &&
    timings.search_ms >= 0 &&
    timings.search_ms < maxDurationMs &&
    isPlainText(rid) &&
    result.every(isMatch)
  );
}

function isMatch([faceId, similarity]: Match): boolean {
  return faceId.length === uuidChars && similarity >= 0 && similarity <= 1;
}

function put(target: Buffer, at: number, bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; i++) target[at + i] = bytes[i] as number;
  return at + bytes.length;
}

function putAscii(target: Buffer, at: number, text: string): number {
  return at + target.write(text, at, "latin1");
}

/** A whole number below 2^31 by exactly so many digits. */
function putDigits(target: Buffer, at: number, value: number, count: number): number {
  let rest = value;
  for (let i = at + count - 1; i >= at; i--) {
    const tenth = (rest / 10) | 0;
    target[i] = zero + rest - tenth * 10;
    rest = tenth;
  }
  return at + count;
}

function putDecimals(target: Buffer, at: number, scaled: number, scale: number, decimals: number): number {
  const whole = (scaled / scale) | 0;
  const from = whole < 10 ? putDigits(target, at, whole, 1) : putAscii(target, at, String(whole));
  target[from] = dot;
  return putDigits(target, from + 1, scaled - whole * scale, decimals);
}

function putUsual(target: Buffer, from: number, reply: MatchReply): number {
  const { result, timings } = reply;
  let at = put(target, from, parts.rid);
  at = putAscii(target, at, reply.rid);
  at = put(target, at, parts.result);
  for (let i = 0; i < result.length; i++) {
    const [faceId, similarity] = result[i] as Match;
    if (i > 0) target[at++] = comma;
    at = put(target, at, parts.match);
    at = putAscii(target, at, faceId);
    at = put(target, at, parts.similarity);
    at = putDecimals(target, at, Math.round(similarity * shareScale), shareScale, shareDecimals);
    target[at++] = closing;
  }
  at = put(target, at, parts.indexId);
  at = putAscii(target, at, reply.index_id ?? "");
  at = put(target, at, parts.revision);
  at = putAscii(target, at, String(reply.revision));
  at = put(target, at, parts.queueMs);
  const queueUs = Math.round((timings?.queue_ms ?? 0) * durationScale);
  at = putDecimals(target, at, queueUs, durationScale, durationDecimals);
  at = put(target, at, parts.searchMs);
  const searchUs = Math.round((timings?.search_ms ?? 0) * durationScale);
  at = putDecimals(target, at, searchUs, durationScale, durationDecimals);
  return put(target, at, parts.end);
}

/** Where texts are made; grows to the largest. */
let scratch = Buffer.alloc(4_096);

/**
 * The reply's JSON text. Face ids and the index id must be what `MatchReply` says they are; similarities and timings are
 * rounded, to 8 and 3 decimals.
 */
export function encodeMatchReply(reply: MatchReply): string {
  if (!isUsual(reply)) return JSON.stringify(reply);
  const most = fixedBytes + reply.rid.length + reply.result.length * matchBytes;
  if (scratch.length < most) scratch = Buffer.alloc(most * 2);
  return scratch.toString("latin1", 0, putUsual(scratch, 0, reply));
}

/** Reads what `putUsual` writes; `failed` as soon as anything else stands there. */
class ReplyReader {
  readonly #bytes: Buffer;
  #at = 0;
  failed = false;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  isAt(code: number): boolean {
    return this.#bytes[this.#at] === code;
  }

  /** Passes `code` where it comes next, and says whether it did. */
  passes(code: number): boolean {
    if (!this.isAt(code)) return false;
    this.#at++;
    return true;
  }

  pass(part: Uint8Array): void {
    if (this.failed) return;
    const from = this.#at;
    for (let i = 0; i < part.length; i++)
      if (this.#bytes[from + i] !== part[i]) {
        this.failed = true;
        return;
      }
    this.#at = from + part.length;
  }

  plainText(): string {
    const from = this.#at;
    let at = from;
    while (isPlain[this.#bytes[at] ?? quote] === 1) at++;
    this.#at = at;
    return this.#bytes.toString("latin1", from, at);
  }

  uuid(): string {
    const from = this.#at;
    for (let i = 0; i < uuidChars; i++) {
      const code = this.#bytes[from + i] ?? 0;
      const isDashed = i === 8 || i === 13 || i === 18 || i === 23;
      if (isDashed ? code !== dash : isLowerHex[code] !== 1) {
        this.failed = true;
        return "";
      }
    }
    this.#at = from + uuidChars;
    return this.#bytes.toString("latin1", from, this.#at);
  }

  /** Digits, and a point between two of them perhaps; no needless zero before them, as JSON has it. */
  number(): number {
    const bytes = this.#bytes;
    const from = this.#at;
    let value = 0;
    let digits = 0;
    let pointAt = -1;
    let at = from;
    for (; ; at++) {
      const digit = (bytes[at] ?? 0) - zero;
      if (digit >= 0 && digit <= 9) {
        value = value * 10 + digit;
        digits++;
      } else if (bytes[at] === dot && pointAt < 0) pointAt = at;
      else break;
    }
    const whole = pointAt < 0 ? digits : pointAt - from;
    this.failed ||=
      whole === 0 || digits > maxDigits || (whole > 1 && bytes[from] === zero) || bytes[at - 1] === dot;
    this.#at = at;
    return value / (powersOfTen[Math.min(digits - whole, maxDigits)] ?? 1);
  }
}

function readUsual(bytes: Buffer): MatchReply | undefined {
  const reader = new ReplyReader(bytes);
  reader.pass(parts.rid);
  const rid = reader.plainText();
  reader.pass(parts.result);
  const result: Match[] = [];
  if (!reader.isAt(closing))
    do {
      reader.pass(parts.match);
      const faceId = reader.uuid();
      reader.pass(parts.similarity);
      const similarity = reader.number();
      reader.failed ||= similarity > 1 || !reader.passes(closing);
      result.push([faceId, similarity]);
    } while (!reader.failed && reader.passes(comma));
  reader.pass(parts.indexId);
  const indexId = reader.uuid();
  reader.pass(parts.revision);
  const revision = reader.number();
  reader.pass(parts.queueMs);
  const queueMs = reader.number();
  reader.pass(parts.searchMs);
  const searchMs = reader.number();
  reader.pass(parts.end);
  if (reader.failed || !reader.isAtEnd || !Number.isSafeInteger(revision)) return undefined;
  return {
    rid,
    status_code: 200,
    result,
    error: null,
    index_id: indexId,
    revision,
    timings: { queue_ms: queueMs, search_ms: searchMs },
  };
}

/** As `parseMatchReply`, of the text's UTF-8. */
export function decodeMatchReply(bytes: Buffer): MatchReply {
  return readUsual(bytes) ?? parseMatchReply(bytes.toString());
}
