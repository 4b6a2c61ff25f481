import { randomUUID } from "node:crypto";
import type { EngineName, Match } from "@lim/contracts";
import type { OpenedIndex, PublishedIndex } from "@lim/index-storage";
import { faceIdOf } from "@lim/testkit";
import { availableEngines } from "@lim/vector-index";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { buildHere, contextOf } from "./in-process.ts";
import { buildRequest, type Stack, startStack, vectorOf } from "./support.ts";

const engineNames = await availableEngines();
/** Sequences of changes for each engine; more by UPDATE_SEQUENCES. */
const sequences = Number(process.env.UPDATE_SEQUENCES ?? 6);
const seed = 20_261_121;
const persons = 24;
/** A bound for a machine that does much else. */
const propertyTimeoutMs = 240_000;

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
});
afterAll(() => stack?.close());

type Step = { kind: "put" | "unlink" | "link" | "erase"; people: number[] } | { kind: "update" };

const people = fc.uniqueArray(fc.nat({ max: persons - 1 }), { minLength: 1, maxLength: 6 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("put" as const), people }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("unlink" as const), people }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("link" as const), people }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("erase" as const), people }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("update" as const) }) },
);

/** A list beside a model of it: which image of which person is linked, and which faces exist. */
class ModelledList {
  readonly listId: string;
  /** Person → image of every face that exists. */
  readonly faces = new Map<number, number>();
  readonly linked = new Set<number>();
  #images = 0;

  constructor(listId: string) {
    this.listId = listId;
  }

  idOf(person: number): string {
    return faceIdOf(this.listId, person);
  }

  /** Person → image of what an index of this moment holds. */
  content(): Map<number, number> {
    return new Map([...this.faces].filter(([person]) => this.linked.has(person)));
  }

  async put(people: readonly number[]): Promise<void> {
    const image = ++this.#images;
    const faces = people.map((person) => ({ faceId: this.idOf(person), vector: vectorOf(person, image) }));
    await stack.db.putFaces({ listIds: [this.listId], descriptorVersion: 1, faces });
    for (const person of people) {
      this.faces.set(person, image);
      this.linked.add(person);
    }
  }

  async carryOut({ kind, people }: Exclude<Step, { kind: "update" }>): Promise<void> {
    if (kind === "put") return this.put(people);
    const { listId } = this;
    const present = people.filter((person) => this.faces.has(person));
    const faceIds = present.map((person) => this.idOf(person));
    if (kind === "link") await stack.db.linkFaces({ listId, faceIds });
    if (kind === "unlink") await stack.db.unlinkFaces({ listId, faceIds });
    if (kind === "erase") await stack.db.deleteFaces({ faceIds });
    for (const person of present) {
      if (kind === "link") this.linked.add(person);
      else this.linked.delete(person);
      if (kind === "erase") this.faces.delete(person);
    }
  }
}

const build = async (listId: string, engine: EngineName, mode: "rebuild" | "update") =>
  buildHere(await contextOf(stack, buildRequest(listId, { engine, mode })));

/** The index holds exactly this content, and answers each face's own vector with the face. */
async function expectContent(opened: OpenedIndex, list: ModelledList, content: Map<number, number>) {
  const { keyed, meta } = opened;
  const held = [...content].toSorted(([a], [b]) => a - b);
  expect(keyed.count).toBe(held.length);
  expect(meta.count).toBe(held.length);
  const ids = keyed.exportIds();
  const stored = Array.from({ length: ids.length / 16 }, (_, i) =>
    Buffer.from(ids.subarray(i * 16, i * 16 + 16)).toString("hex"),
  ).filter((id) => !/^0+$/.test(id));
  expect(stored.toSorted()).toEqual(held.map(([person]) => list.idOf(person).replaceAll("-", "")).toSorted());
  for (const [person, image] of held) {
    const answer = await keyed.search(vectorOf(person, image), { limit: 1, ef: 64 });
    const [best]: Match[] = answer[0] ?? [];
    expect(best?.[0]).toBe(list.idOf(person));
    expect(best?.[1]).toBeGreaterThanOrEqual(1 - 1e-3);
  }
}

/** Faces of `before` that are gone or have another vector: nodes of the graph that an update took out. */
function removedBetween(before: Map<number, number>, now: Map<number, number>): number {
  return [...before].filter(([person, image]) => now.get(person) !== image).length;
}

async function vectorsOf(opened: OpenedIndex): Promise<Map<string, string>> {
  const { index } = opened.keyed;
  const ids = opened.keyed.exportIds();
  const rows = new Map<string, string>();
  for (let position = 0; position < index.slots; position++) {
    const id = Buffer.from(ids.subarray(position * 16, position * 16 + 16)).toString("hex");
    if (/^0+$/.test(id)) continue;
    const row = await index.read(Uint32Array.of(position));
    rows.set(id, Buffer.from(row.buffer, row.byteOffset, row.byteLength).toString("hex"));
  }
  return rows;
}

interface Published {
  published: PublishedIndex;
  content: Map<number, number>;
}

async function update(list: ModelledList, engine: EngineName, base: Published): Promise<Published> {
  const content = list.content();
  const published = await build(list.listId, engine, "update");
  const [state] = await stack.db.listStates({ listIds: [list.listId] });
  expect(published.meta).toMatchObject({
    build: { mode: "update", skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 } },
    base_index_id: base.published.indexId,
    count: content.size,
    revision: state?.revision,
    history_id: state?.historyId,
    removed_since_rebuild: base.published.meta.removed_since_rebuild + removedBetween(base.content, content),
  });
  return { published, content };
}

async function expectSameAsRebuilt(
  list: ModelledList,
  engine: EngineName,
  { published, content }: Published,
) {
  const rebuilt = await build(list.listId, engine, "rebuild");
  expect(rebuilt.meta).toMatchObject({
    revision: published.meta.revision,
    count: published.meta.count,
    removed_since_rebuild: 0,
    build: { mode: "rebuild" },
  });
  expect(rebuilt.meta.base_index_id).toBeUndefined();
  const open = (indexId: string) => stack.storage.open({ label: list.listId, indexId });
  const both = [await open(published.indexId), await open(rebuilt.indexId)] as const;
  try {
    for (const opened of both) await expectContent(opened, list, content);
    const [ours, theirs] = [await vectorsOf(both[0]), await vectorsOf(both[1])];
    expect(ours).toEqual(theirs);
  } finally {
    await Promise.all(both.map(({ keyed }) => keyed.close()));
  }
}

it.each(engineNames)(
  "I1 I5 after any sequence of changes an updated index of %s is the rebuilt one",
  async (engine) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 14 }), async (steps) => {
        const { listId } = await stack.db.createList({ name: `list-${randomUUID()}` });
        const list = new ModelledList(listId);
        // One person that no step touches: a list that is emptied has an outcome of its own, tested elsewhere.
        await list.put([persons, ...Array.from({ length: persons / 2 }, (_, person) => person)]);
        let newest: Published = {
          published: await build(listId, engine, "rebuild"),
          content: list.content(),
        };
        for (const next of steps) {
          if (next.kind === "update") newest = await update(list, engine, newest);
          else await list.carryOut(next);
        }
        newest = await update(list, engine, newest);
        await expectSameAsRebuilt(list, engine, newest);
      }),
      { seed, numRuns: sequences, endOnFailure: true },
    );
  },
  propertyTimeoutMs,
);
