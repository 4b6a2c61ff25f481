import { randomUUID } from "node:crypto";
import { LimError, type Task } from "@lim/contracts";
import type { Log } from "@lim/coordination";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createTaskFollower } from "../src/api/task-follower.ts";
import { type Api, startApi, storeWith } from "./api-harness.ts";

let api: Api;

beforeAll(async () => {
  api = await startApi();
});
afterEach(() => api.clear());
afterAll(() => api.close());

const pollMs = 1;

/** A follower of the real store that tells of its reads, and a log that counts. */
function observed(broken: () => boolean = () => false) {
  const signals = new Set<AbortSignal | undefined>();
  const logged = { info: 0, warn: 0, reads: 0 };
  const log: Log = {
    debug: () => {},
    info: () => void logged.info++,
    warn: () => void logged.warn++,
    error: () => {},
  };
  const store = storeWith(api.harness.store, {
    async get(taskId, options) {
      signals.add(options?.signal);
      logged.reads++;
      if (broken()) throw new LimError("redis_unavailable", "away");
      return api.harness.store.get(taskId, options);
    },
  });
  return { follower: createTaskFollower({ store, log, pollMs }), signals, logged };
}

async function task(): Promise<string> {
  const taskId = randomUUID();
  const listId = await api.harness.list();
  await api.harness.store.create({ taskId, listId, mode: "rebuild", trigger: "request" });
  return taskId;
}

describe("a reader of a followed task", () => {
  it("I10: is one for all who follow the task, and stops with the last of them", async () => {
    const { follower, signals } = observed();
    const taskId = await task();
    const seen: [string, Task | undefined][] = [];
    const stopFirst = follower.follow(taskId, (read) => void seen.push(["first", read]));
    const stopSecond = follower.follow(taskId, (read) => void seen.push(["second", read]));
    const hasSeen = (who: string) =>
      eventually(`${who} has read`, () => (seen.some(([name]) => name === who) ? true : undefined));
    await Promise.all([hasSeen("first"), hasSeen("second")]);
    expect(seen[0]?.[1]?.task_id).toBe(taskId);
    expect([follower.followed, signals.size]).toEqual([1, 1]);
    stopFirst();
    seen.length = 0;
    await hasSeen("second");
    expect(seen.some(([name]) => name === "first")).toBe(false);
    stopSecond();
    stopSecond();
    expect(follower.followed).toBe(0);
    expect([...signals].every((signal) => signal?.aborted)).toBe(true);
    // Who comes later starts another reader, which the ends of before do not stop.
    const stopThird = follower.follow(taskId, (read) => void seen.push(["third", read]));
    stopFirst();
    await hasSeen("third");
    expect([follower.followed, signals.size]).toEqual([1, 2]);
    stopThird();
  });

  it("I9: reads on while Redis is away, and says so once for each time", async () => {
    let away = true;
    const { follower, logged } = observed(() => away);
    const taskId = await task();
    let seen = 0;
    const stop = follower.follow(taskId, () => void seen++);
    await eventually("several reads failed", () => (logged.reads >= 5 ? true : undefined));
    expect([seen, logged.warn, logged.info]).toEqual([0, 1, 0]);
    away = false;
    await eventually("it is read again", () => (seen > 0 ? true : undefined));
    expect([logged.warn, logged.info]).toEqual([1, 1]);
    stop();
  });
});
