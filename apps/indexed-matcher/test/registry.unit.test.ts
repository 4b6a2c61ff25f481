import fc from "fast-check";
import { expect, test } from "vitest";
import { IndexHolder } from "../src/index-holder.ts";
import { LabelSlot, type Lease } from "../src/label-slot.ts";
import { Registry } from "../src/registry.ts";
import { FakeKeyed, indexIdOf, listId, metaOf } from "./fakes.ts";

function makeHolder(number: number, revision: number, history?: string) {
  const keyed = new FakeKeyed();
  const meta = metaOf({ index_id: indexIdOf(number), revision, ...(history ? { history_id: history } : {}) });
  return { keyed, holder: new IndexHolder({ meta, keyed, sizeBytes: 1 }) };
}

test("I7: whatever the order of readers and swaps, no reader's index is closed and each retired one is closed once", () => {
  const step = fc.oneof(
    fc.constant({ kind: "acquire" as const }),
    fc.record({ kind: fc.constant("release" as const), at: fc.nat() }),
    fc.record({ kind: fc.constant("swap" as const), by: fc.nat(3) }),
    fc.constant({ kind: "clear" as const }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const slot = new LabelSlot(listId);
      const made: { keyed: FakeKeyed; holder: IndexHolder }[] = [];
      const leases: Lease[] = [];
      let revision = 0;
      for (const action of steps) {
        if (action.kind === "acquire") {
          const lease = slot.acquire();
          expect(lease === undefined).toBe(slot.current === undefined);
          if (lease) leases.push(lease);
        } else if (action.kind === "release") {
          const [lease] = leases.length > 0 ? leases.splice(action.at % leases.length, 1) : [];
          lease?.release();
          lease?.release();
        } else if (action.kind === "swap") {
          revision += action.by;
          const next = makeHolder(made.length, revision);
          made.push(next);
          slot.swap(next.holder);
        } else slot.clear();
        for (const { keyed, holder } of made) {
          const isUsed = holder === slot.current || leases.some((lease) => lease.holder === holder);
          expect(keyed.closings).toBe(isUsed ? 0 : 1);
        }
      }
    }),
  );
});

test("I12: an index at a lower revision of the same history is not swapped in, one of another history is", () => {
  const slot = new LabelSlot(listId);
  const old = makeHolder(1, 20);
  slot.swap(old.holder);
  expect(() => slot.swap(makeHolder(2, 19).holder)).toThrow(/revision 19/);
  expect(slot.current).toBe(old.holder);
  expect(() => old.holder.advance(19)).toThrow(/below/);
  const restored = makeHolder(3, 5, indexIdOf(99));
  slot.swap(restored.holder);
  expect(slot.current).toBe(restored.holder);
  expect(old.keyed.closings).toBe(1);
});

test("waiting for a revision ends when it is applied, when time is up, and when the label goes", async () => {
  const slot = new LabelSlot(listId);
  const { holder } = makeHolder(1, 10);
  slot.swap(holder);
  const signal = new AbortController().signal;
  expect(await slot.waitForRevision(10, { timeoutMs: 0, signal })).toBe(true);
  expect(await slot.waitForRevision(11, { timeoutMs: 5, signal })).toBe(false);
  const reached = slot.waitForRevision(12, { timeoutMs: 5_000, signal });
  holder.advance(11);
  slot.wakeWaiters();
  holder.advance(12);
  slot.wakeWaiters();
  expect(await reached).toBe(true);
  const lost = slot.waitForRevision(13, { timeoutMs: 5_000, signal });
  slot.clear();
  expect(await lost).toBe(false);
});

test("closing the registry waits for readers", async () => {
  const registry = new Registry();
  const { keyed, holder } = makeHolder(1, 10);
  registry.slotOf(listId).swap(holder);
  const lease = registry.acquire(listId);
  let closed = false;
  const closing = registry.close().then(() => {
    closed = true;
  });
  await Promise.resolve();
  expect(registry.acquire(listId)).toBeUndefined();
  expect([closed, keyed.closings]).toEqual([false, 0]);
  lease?.release();
  await closing;
  expect(keyed.closings).toBe(1);
});
