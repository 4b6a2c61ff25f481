import { isLimError } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { cursorOf, flagQuery, limitQuery, numberQuery, pageOf, sortKeyOf } from "../src/api/paging.ts";

const order = {
  keyOf: (item: number) => item,
  compare: (a: number, b: number) => a - b,
  keySchema: z.int(),
};
const sorted = (items: Iterable<number>) => [...new Set(items)].toSorted((a, b) => a - b);
const numbers = fc.array(fc.integer({ min: 0, max: 200 }), { maxLength: 60 });

describe("pages", () => {
  it("give every item once, in order, whatever the page's size", () => {
    fc.assert(
      fc.property(numbers, fc.integer({ min: 1, max: 20 }), (items, limit) => {
        const all = sorted(items);
        const seen: number[] = [];
        let cursor: string | undefined;
        do {
          const page = pageOf(all, { limit, cursor }, order);
          expect(page.items.length).toBeLessThanOrEqual(limit);
          seen.push(...page.items);
          cursor = page.nextCursor ?? undefined;
        } while (cursor !== undefined);
        expect(seen).toEqual(all);
      }),
    );
  });

  it("neither repeat nor hide what stays while others appear and vanish between them", () => {
    fc.assert(
      fc.property(
        numbers,
        fc.array(numbers, { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 9 }),
        (staying, others, limit) => {
          const seen: number[] = [];
          let cursor: string | undefined;
          let round = 0;
          do {
            const now = sorted([...staying, ...(others[round++ % others.length] ?? [])]);
            const page = pageOf(now, { limit, cursor }, order);
            seen.push(...page.items);
            cursor = page.nextCursor ?? undefined;
          } while (cursor !== undefined);
          expect(new Set(seen).size).toBe(seen.length);
          expect(seen).toEqual(expect.arrayContaining(sorted(staying)));
        },
      ),
    );
  });

  it("end where everything after the cursor is gone", () => {
    expect(pageOf([1, 2], { limit: 5, cursor: cursorOf(7) }, order)).toEqual({ items: [], nextCursor: null });
  });
});

describe("cursors", () => {
  it("I11: anything but a cursor of this list is bad input, never a crash", () => {
    const refused = (cursor: string) => {
      try {
        sortKeyOf(z.tuple([z.string(), z.int()]), cursor);
        return false;
      } catch (thrown) {
        return isLimError(thrown, "bad_input");
      }
    };
    expect(refused(cursorOf(["a", 1]))).toBe(false);
    for (const other of [cursorOf(1), cursorOf(["a"]), `${cursorOf(["a", 1])}=`, "%%", "null", ""])
      expect(refused(other), other).toBe(true);
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => refused(text)));
  });
});

describe("values of a query string", () => {
  it("numbers are plain digits within their range", () => {
    const limit = limitQuery({ most: 10, byDefault: 5, what: "things" });
    expect(limit.parse(undefined)).toBe(5);
    expect(limit.parse("10")).toBe(10);
    for (const bad of ["0", "11", "", " 5", "5.0", "0x5", "1e0", "-1", "+1", "ten", ["1", "2"]])
      expect(
        limit.safeParse(bad).error?.issues.map((issue) => issue.message),
        `${bad}`,
      ).toEqual(["must be a whole number from 1 to 10"]);
    expect(numberQuery(0, Number.MAX_SAFE_INTEGER).safeParse("9999999999999999").success).toBe(false);
  });

  it("flags are true or false", () => {
    expect(["true", "false", undefined].map((text) => flagQuery.parse(text))).toEqual([true, false, false]);
    for (const bad of ["1", "TRUE", "yes", "", ["true", "true"]])
      expect(flagQuery.safeParse(bad).success, `${bad}`).toBe(false);
  });
});
