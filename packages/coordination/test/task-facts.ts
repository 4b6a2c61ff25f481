import type { Redis } from "ioredis";
import { expect } from "vitest";
import type { Keys } from "../src/keys.ts";

const letters: Record<string, string> = { pending: "p", indexing: "i", success: "s", error: "e" };

/** The facts of a record, by the layout that task_guard.lua tells. */
function factsOf(id: string, record: Record<string, string>): string {
  const time = (field: string) => (record[field] ?? "").padStart(18);
  const letter = letters[record.status ?? ""] ?? "?";
  const times = time("create_us") + time("start_us") + time("end_us");
  return `${letter}${times}${(record.list_id ?? "").padStart(36)}${record.indexer ?? ""} ${id}`;
}

/** Score and facts of each task one after the other, as they should be. */
async function expectedFacts(raw: Redis, keys: Keys): Promise<string[]> {
  const scored = await raw.zrange(keys.tasks, 0, "-1", "WITHSCORES");
  const facts: string[] = [];
  for (let i = 0; i + 1 < scored.length; i += 2) {
    const id = scored[i] ?? "";
    facts.push(factsOf(id, await raw.hgetall(keys.task(id))), scored[i + 1] ?? "");
  }
  return facts;
}

export async function expectFactsOfRecords(raw: Redis, keys: Keys): Promise<void> {
  const stored = await raw.zrange(keys.facts, 0, "-1", "WITHSCORES");
  expect(stored).toEqual(await expectedFacts(raw, keys));
}

/** After records were changed past the scripts. */
export async function rewriteFacts(raw: Redis, keys: Keys): Promise<void> {
  const facts = await expectedFacts(raw, keys);
  await raw.del(keys.facts);
  for (let i = 0; i + 1 < facts.length; i += 2)
    await raw.zadd(keys.facts, facts[i + 1] ?? "", facts[i] ?? "");
}
