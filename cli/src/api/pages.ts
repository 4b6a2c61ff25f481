import { LimError } from "@lim/contracts";

/** Pages of one listing; a manager that never says that a page is the last one is not followed for ever. */
const maxPages = 10_000;

export interface Pages<T> {
  items: T[];
  /** Of all that match, where the manager counts them. */
  total: number | undefined;
  /** Of what comes after the items; null where they are all. */
  nextCursor: string | null;
}

/** Follows cursors until `limit` items (Infinity: all) are there. Asks once at least. */
export async function collectPages<T>(
  limit: number,
  maxPage: number,
  read: (page: { limit: number; cursor?: string }) => Promise<Pages<T>>,
): Promise<Pages<T>> {
  const items: T[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < maxPages; page++) {
    const asked = Math.min(limit - items.length, maxPage);
    const answer = await read({ limit: asked, ...(cursor === null ? {} : { cursor }) });
    items.push(...answer.items);
    if (answer.nextCursor === null || items.length >= limit) return { ...answer, items };
    cursor = answer.nextCursor;
  }
  throw new LimError("overloaded", `more than ${maxPages} pages: narrow the filters down`);
}
