import type { IndexMeta } from "@lim/contracts";
import type { ListState } from "@lim/faces-db";
import type { PublishedIndex } from "@lim/index-storage";
import { expect, test } from "vitest";
import { planReconcile, type ServedView } from "../src/reconcile-plan.ts";
import { historyId, indexIdOf, listId, metaOf } from "./fakes.ts";

function stored(number: number, overrides: Partial<IndexMeta> = {}): PublishedIndex {
  const meta = metaOf({ index_id: indexIdOf(number), ...overrides });
  return { indexId: meta.index_id, label: meta.label, meta, sizeBytes: 1 };
}

const list: ListState = {
  listId,
  historyId,
  name: "list",
  revision: 100,
  faceCount: 1,
  removedTotal: 0,
  oldestKeptRevision: 0,
};

function plan(options: {
  indexes: PublishedIndex[];
  served?: IndexMeta;
  failed?: boolean;
  refused?: string[];
  lists?: ListState[];
  known?: boolean;
}) {
  const view: ServedView = {
    label: listId,
    served: options.served && { meta: options.served, failed: options.failed ?? false },
  };
  const plans = planReconcile({
    listing: {
      indexes: options.indexes,
      refused: (options.refused ?? []).map((indexId) => ({ label: listId, indexId, reason: "broken" })),
    },
    lists: options.lists ?? [list],
    registry: options.served || options.known ? [view] : [],
    descriptorVersion: 1,
    dim: 8,
  });
  expect(plans.length).toBeLessThan(2);
  const [first] = plans;
  if (!first) return "nothing";
  if (first.kind === "unload") return `unload: ${first.reason}`;
  const numbers = first.candidates.map((index) => Number(index.indexId.slice(-3))).join(",");
  return `${first.kind}${first.kind === "load" && first.dropFirst ? " anew" : ""}: ${numbers}`;
}

test("a new label loads its newest index, with the older ones to fall back on", () => {
  expect(plan({ indexes: [stored(1, { revision: 5 }), stored(2, { revision: 9 })] })).toBe("load: 2,1");
  const later = "2026-01-02T00:00:00.000Z";
  expect(plan({ indexes: [stored(1, { create_time: later }), stored(2)] })).toBe("load: 1,2");
});

test("other versions, dimensions and histories, and revisions ahead of the list, are never loaded", () => {
  const strange = [
    stored(1, { descriptor_version: 2 }),
    stored(2, { dim: 16 }),
    stored(3, { history_id: indexIdOf(9) }),
    stored(4, { revision: 101 }),
  ];
  expect(plan({ indexes: strange })).toBe("nothing");
  expect(plan({ indexes: [...strange, stored(5)] })).toBe("load: 5");
});

test("a served label is replaced by newer indexes only", () => {
  const served = metaOf({ index_id: indexIdOf(2), revision: 10 });
  const older = stored(1, { revision: 9 });
  expect(plan({ served, indexes: [older, stored(2)] })).toBe("nothing");
  expect(plan({ served, indexes: [older, stored(2), stored(3, { revision: 11 })] })).toBe("replace: 3");
  const indexes = [stored(2), stored(3, { revision: 11 }), stored(4, { revision: 12 })];
  expect(plan({ served, indexes })).toBe("replace: 4,3");
});

test("after a restore the index of the list's present history replaces one at a higher revision", () => {
  const served = metaOf({ index_id: indexIdOf(2), revision: 100, history_id: indexIdOf(9) });
  const left = stored(2, { revision: 100, history_id: indexIdOf(9) });
  expect(plan({ served, indexes: [left, stored(3, { revision: 50 })] })).toBe("replace: 3");
});

test("a served index that was removed gives way to what is left, and the label goes with the last", () => {
  const served = metaOf({ index_id: indexIdOf(2) });
  expect(plan({ served, indexes: [stored(1, { revision: 9 })] })).toBe("replace: 1");
  expect(plan({ served, indexes: [] })).toBe("unload: removed_from_storage");
  // Folders that cannot be read are no removal.
  expect(plan({ served, indexes: [], refused: [indexIdOf(2)] })).toBe("nothing");
});

test("a deleted list is unloaded, and nothing of it is loaded", () => {
  expect(plan({ served: metaOf(), indexes: [stored(1)], lists: [] })).toBe("unload: list_deleted");
  expect(plan({ indexes: [stored(1)], lists: [] })).toBe("nothing");
});

test("an index whose engine failed is loaded anew; a label that never loaded is forgotten with its indexes", () => {
  const served = metaOf();
  expect(plan({ served, failed: true, indexes: [stored(1)] })).toBe("load anew: 1");
  expect(plan({ known: true, indexes: [stored(1)] })).toBe("load: 1");
  expect(plan({ known: true, indexes: [] })).toBe("unload: removed_from_storage");
});
