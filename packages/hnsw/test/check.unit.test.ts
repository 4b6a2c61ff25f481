import { expect, test } from "vitest";
import { linksAddress } from "../src/check.ts";
import { coreOf } from "../src/hnsw-index.ts";
import type { HnswIndex } from "../src/index.ts";
import { noWord } from "../src/limits.ts";
import { clustered, dim, range, setUp } from "./support.ts";

const { create } = setUp();
const count = 1200;

async function filled(): Promise<HnswIndex> {
  const index = await create({});
  await index.upsert(range(0, count), clustered(count, dim, 31), { threads: 1 });
  return index;
}

/** The links of a slot on level 0, in the index's memory. */
function linksOf(index: HnswIndex, slot: number): Uint32Array {
  const { memory, layout } = coreOf(index);
  return new Uint32Array(memory.memory.buffer, linksAddress(layout, slot, 0), 2 * index.m);
}

/** Takes away every link to `cut` on level 0; lists stay without gaps. */
function cutOff(index: HnswIndex, cut: ReadonlySet<number>): void {
  for (let slot = 0; slot < count; slot++) {
    const links = linksOf(index, slot);
    // Words past the end of a list are left from before.
    const end = links.indexOf(noWord);
    const kept = links.slice(0, end < 0 ? links.length : end).filter((link) => !cut.has(link));
    links.fill(noWord).set(kept);
  }
}

test("a sound graph reaches all, and has no bad link", async () => {
  const index = await filled();
  expect(await index.check()).toMatchObject({ live: count, unreachable: 0, badLinks: 0, problems: [] });
  await index.close();
});

test("vectors that no link leads to are counted", async () => {
  const index = await filled();
  const entry = new Uint32Array(coreOf(index).memory.memory.buffer, 65_536 + 256, 1)[0] ?? 0;
  const cut = new Set([11, 12, 500, 777].filter((slot) => slot !== entry - 1));
  cutOff(index, cut);
  expect(await index.check()).toMatchObject({ unreachable: cut.size, badLinks: 0, problems: [] });
  await index.close();
});

test("links to nowhere, to themselves and twice to the same are bad", async () => {
  const index = await filled();
  const [first = 0] = linksOf(index, 3);
  linksOf(index, 3).set([first, first, 3, count + 5], 0);
  const { badLinks, problems } = await index.check();
  expect(badLinks).toBe(3);
  expect(problems).toHaveLength(3);
  expect(problems[0]).toContain("slot 3");
  await index.close();
});
