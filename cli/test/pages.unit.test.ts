import { expect, test } from "vitest";
import { collectPages } from "../src/api/pages.ts";

/** A listing of whole numbers whose cursor is the next one. */
function listing(count: number) {
  const asked: number[] = [];
  const read = async ({ limit, cursor }: { limit: number; cursor?: string }) => {
    asked.push(limit);
    const start = Number(cursor ?? 0);
    const stop = Math.min(start + limit, count);
    return {
      items: Array.from({ length: stop - start }, (_, i) => start + i),
      total: count,
      nextCursor: stop < count ? String(stop) : null,
    };
  };
  return { asked, read };
}

test("a limit within one page asks once, for exactly that many", async () => {
  const { asked, read } = listing(50);
  const pages = await collectPages(20, 1_000, read);
  expect(asked).toEqual([20]);
  expect(pages).toMatchObject({ total: 50, nextCursor: "20" });
  expect(pages.items).toHaveLength(20);
});

test("a limit past one page follows cursors, and the last page is no longer than needed", async () => {
  const { asked, read } = listing(5_000);
  const pages = await collectPages(2_500, 1_000, read);
  expect(asked).toEqual([1_000, 1_000, 500]);
  expect(pages.items).toEqual(Array.from({ length: 2_500 }, (_, i) => i));
  expect(pages.nextCursor).toBe("2500");
});

test("without a limit everything comes, once each", async () => {
  const { read } = listing(2_345);
  const pages = await collectPages(Number.POSITIVE_INFINITY, 1_000, read);
  expect(pages.items).toEqual(Array.from({ length: 2_345 }, (_, i) => i));
  expect(pages.nextCursor).toBeNull();
});

test("an empty listing is asked for once", async () => {
  const { asked, read } = listing(0);
  expect((await collectPages(10, 1_000, read)).items).toEqual([]);
  expect(asked).toEqual([10]);
});

test("a listing that never ends is given up", async () => {
  const endless = async () => ({ items: [], total: undefined, nextCursor: "again" });
  await expect(collectPages(10, 1_000, endless)).rejects.toMatchObject({ errorName: "overloaded" });
});
