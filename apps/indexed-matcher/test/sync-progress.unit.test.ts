import fc from "fast-check";
import { expect, test } from "vitest";
import { SyncProgress } from "../src/sync-progress.ts";

const none = { added: 0, replaced: 0, removed: 0 };

test("25 additions and then 5 removals are three packets and one", () => {
  const progress = new SyncProgress({ additions: 25, removals: 5 });
  const lines = [10, 10].map((added) => {
    progress.fetched({ ...none, added }, false);
    return progress.line();
  });
  progress.fetched({ ...none, added: 5, removed: 5 }, true);
  expect([...lines, progress.line()]).toEqual(["Sync: 1->3, 0->1", "Sync: 2->3, 0->1", "Sync: 3->3, 1->1"]);
});

test("a replaced face counts on both sides", () => {
  const progress = new SyncProgress({ additions: 11, removals: 11 });
  progress.fetched({ ...none, replaced: 10 }, false);
  expect(progress.line()).toBe("Sync: 1->2, 1->2");
});

test("fetched never exceeds needed, never goes back, and equals it once drained", () => {
  const packet = fc.record({ added: fc.nat(10), replaced: fc.nat(10), removed: fc.nat(10) });
  fc.assert(
    fc.property(
      fc.array(packet, { minLength: 1 }),
      fc.nat(300),
      fc.nat(300),
      (packets, additions, removals) => {
        const progress = new SyncProgress({ additions, removals });
        let before = [0, 0];
        packets.forEach((faces, i) => {
          const drained = i === packets.length - 1;
          progress.fetched(faces, drained);
          const numbers = progress.line().match(/\d+/g)?.map(Number) ?? [];
          const [a = 0, needA = 0, r = 0, needR = 0] = numbers;
          expect([needA, needR]).toEqual([Math.ceil(additions / 10), Math.ceil(removals / 10)]);
          expect(a <= needA && r <= needR && a >= (before[0] ?? 0) && r >= (before[1] ?? 0)).toBe(true);
          if (drained) expect([a, r]).toEqual([needA, needR]);
          before = [a, r];
        });
      },
    ),
  );
});
