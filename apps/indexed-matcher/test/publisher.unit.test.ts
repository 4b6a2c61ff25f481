import type { LabelKeyValue } from "@lim/contracts";
import { expect, test } from "vitest";
import { IndexHolder } from "../src/index-holder.ts";
import { Publisher } from "../src/publisher.ts";
import { Registry } from "../src/registry.ts";
import { FakeKeyed, listId, metaOf } from "./fakes.ts";

const silent = { debug() {}, info() {}, warn() {}, error() {} };

function setUp() {
  const registry = new Registry();
  const holder = new IndexHolder({ meta: metaOf(), keyed: new FakeKeyed(), sizeBytes: 1 });
  registry.slotOf(listId).swap(holder);
  const steps: string[] = [];
  let read: readonly string[] = [];
  const publisher = new Publisher({
    registry,
    consumer: {
      async setLabels(labels) {
        read = labels;
        steps.push(`read ${labels.length}`);
      },
    },
    announcer: {
      async announce(_label: string, value: LabelKeyValue) {
        steps.push(`announce ${value.revision}`);
      },
      async withdraw() {
        steps.push("withdraw");
      },
      async close() {
        steps.push("close");
      },
    },
    log: silent,
  });
  return { publisher, holder, steps, read: () => read };
}

test("I8: the stream is read before the key is set, and the key withdrawn before reading ends", async () => {
  const { publisher, steps } = setUp();
  await publisher.announce(listId);
  expect(steps).toEqual([]);
  await publisher.serve(listId);
  await publisher.withdraw(listId);
  await publisher.announce(listId);
  expect(steps).toEqual(["read 1", "announce 10", "withdraw", "read 0"]);
});

test("updates during a refresh are gathered, and none comes after the end", async () => {
  const { publisher, steps, holder } = setUp();
  await publisher.serve(listId);
  for (let revision = 11; revision < 15; revision++) {
    holder.advance(revision);
    publisher.announceSoon(listId);
  }
  await expect.poll(() => steps.at(-1)).toBe("announce 14");
  publisher.announceSoon(listId);
  await publisher.close();
  await publisher.serve(listId);
  expect(steps).toEqual(["read 1", "announce 10", "announce 14", "close"]);
});

test("I6: a label that was withdrawn is read no more, though its index is still there when others change", async () => {
  const { publisher, read } = setUp();
  await publisher.serve(listId);
  await Promise.all([publisher.withdraw(listId), publisher.serve("another")]);
  await publisher.serve("a third");
  expect(read()).toEqual(["another", "a third"]);
});
