import { LimError } from "@lim/contracts";
import { z } from "zod";

/**
 * The one spelling of paging: `limit`, `cursor`, `next_cursor`. A cursor holds the sort key of the last item that was
 * given out, never a number of items, so what appears or vanishes between two pages neither repeats nor hides another.
 */

/** Characters of the longest cursor: well above what any sort key needs. */
const maxCursorChars = 512;

/**
 * A value of a query string that is not text. Written as an overwriting check, not as a transformation: of a
 * transformed value the document would not tell the default.
 */
function queryValue<Value>(
  read: (text: string) => Value | undefined,
  rule: { is: (value: Value) => boolean; message: string; meta: z.GlobalMeta },
): z.ZodType<Value> {
  const schema = z
    .unknown()
    .overwrite((text) => (typeof text === "string" ? read(text) : undefined))
    .refine((value) => value !== undefined && rule.is(value as Value), rule.message)
    .meta(rule.meta);
  return schema as unknown as z.ZodType<Value>;
}

/** A whole number. Only plain digits: "0x10", "1e2" and "" are numbers to the language, but mistakes in an address. */
export function numberQuery(from: number, to: number): z.ZodType<number> {
  return queryValue((text) => (/^\d{1,16}$/.test(text) ? Number(text) : undefined), {
    is: (value) => value >= from && value <= to,
    message: `must be a whole number from ${from} to ${to}`,
    meta: { type: "integer", minimum: from, maximum: to },
  });
}

/** `true` or `false`, nothing else. */
export const flagQuery = queryValue(
  (text) => (text === "true" ? true : text === "false" ? false : undefined),
  { is: () => true, message: "must be true or false", meta: { type: "boolean" } },
).default(false);

export function limitQuery({ most, byDefault, what }: { most: number; byDefault: number; what: string }) {
  return numberQuery(1, most).default(byDefault).describe(`Most ${what}`);
}

export const cursorQuery = z
  .string()
  .min(1)
  .max(maxCursorChars)
  .optional()
  .describe("`next_cursor` of the answer before; without it the first page");

export const cursorOf = (sortKey: unknown): string =>
  Buffer.from(JSON.stringify(sortKey), "utf8").toString("base64url");

/** Throws bad_input for anything that `cursorOf` did not make of such a key. */
export function sortKeyOf<Key>(schema: z.ZodType<Key>, cursor: string): Key {
  const text = Buffer.from(cursor, "base64url").toString("utf8");
  const parsed = schema.safeParse(parseJson(text));
  if (parsed.success && cursorOf(parsed.data) === cursor) return parsed.data;
  throw new LimError("bad_input", "querystring/cursor: must be the next_cursor of an earlier answer");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * The page after `cursor` of items that are sorted by their key. `compare` is the order of keys; `keySchema` tells a
 * cursor of this list from others.
 */
export function pageOf<Item, Key>(
  sorted: readonly Item[],
  page: { limit: number; cursor: string | undefined },
  order: { keyOf: (item: Item) => Key; compare: (a: Key, b: Key) => number; keySchema: z.ZodType<Key> },
): { items: Item[]; nextCursor: string | null } {
  const after = page.cursor === undefined ? undefined : sortKeyOf(order.keySchema, page.cursor);
  const start =
    after === undefined ? 0 : sorted.findIndex((item) => order.compare(order.keyOf(item), after) > 0);
  const items = start < 0 ? [] : sorted.slice(start, start + page.limit);
  const last = items.at(-1);
  const isLastPage = last === undefined || start + items.length >= sorted.length;
  return { items, nextCursor: isLastPage ? null : cursorOf(order.keyOf(last)) };
}
