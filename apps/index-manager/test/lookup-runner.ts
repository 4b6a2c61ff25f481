import { randomUUID } from "node:crypto";
import { defaults, type Task } from "@lim/contracts";
import { createIndexerRegistry, createLeaderElection, defaultKeyNames } from "@lim/coordination";
import { Registry } from "@lim/service-kit";
import { eventually } from "@lim/testkit";
import { createIndexerClient } from "../src/indexer-client.ts";
import { createLookup } from "../src/lookup.ts";
import { createManagerMetrics, type ManagerMetrics } from "../src/metrics.ts";
import type { Harness } from "./harness.ts";

/** The control loop of a real leadership, one lookup at a time. */
export interface LookupRunner {
  once(): Promise<void>;
  /** Looks up until `probe` gives something. */
  until<T>(what: string, probe: () => Promise<T | undefined> | T | undefined): Promise<T>;
  untilStatus(taskId: string, status: Task["status"]): Promise<Task>;
  /** A one-time task of a new list. */
  newTask(): Promise<string>;
  metrics: ManagerMetrics;
  /** Value of a metric's sample, as exported: `name{labels}`. */
  sample(line: string): Promise<number | undefined>;
  /** Messages at level warn or error, with their fields. */
  warned: { message: string; fields: object }[];
  end(): Promise<void>;
}

export async function startLookup(
  harness: Harness,
  origins: readonly string[],
  retryBackoffMs = 50,
): Promise<LookupRunner> {
  const registry = new Registry();
  const metrics = createManagerMetrics(registry);
  const warned: LookupRunner["warned"] = [];
  const note = (fields: object, message: string) => warned.push({ message, fields });
  const log = { debug: () => {}, info: () => {}, warn: note, error: note };
  const { redis, store, storage } = harness;
  const stop = new AbortController();
  const election = createLeaderElection({ redis, keys: defaultKeyNames, leaseTtlMs: 10_000, log });
  const elected = Promise.withResolvers<{ epoch: number; signal: AbortSignal }>();
  const led = election.run(
    (leadership) => {
      elected.resolve(leadership);
      return new Promise((resolve) =>
        leadership.signal.addEventListener("abort", () => resolve(), { once: true }),
      );
    },
    { signal: stop.signal },
  );
  const leadership = await elected.promise;
  const lookup = createLookup(
    {
      store,
      storage,
      metrics,
      log,
      retryBackoffMs,
      nowMs: async () => Date.now(),
      registry: createIndexerRegistry({ redis }),
      client: createIndexerClient(log),
      staticOrigins: origins,
      build: {
        engine: defaults.engine,
        params: { m: 16, ef_construction: 200 },
        descriptor_version: 1,
        dim: 8,
      },
    },
    leadership,
  );
  const runner: LookupRunner = {
    metrics,
    warned,
    once: () => lookup.once(),
    until: (what, probe) =>
      eventually(
        what,
        async () => {
          await lookup.once();
          return probe();
        },
        { intervalMs: 50 },
      ),
    untilStatus: (taskId, status) =>
      runner.until(`task is ${status}`, async () => {
        const task = await store.get(taskId);
        return task?.status === status ? task : undefined;
      }),
    async newTask() {
      const taskId = randomUUID();
      const listId = await harness.list();
      await store.create({ taskId, listId, mode: "rebuild", trigger: "request" });
      return taskId;
    },
    async sample(line) {
      const found = (await registry.metrics()).split("\n").find((one) => one.startsWith(`${line} `));
      return found === undefined ? undefined : Number(found.slice(line.length + 1));
    },
    async end() {
      stop.abort();
      await led;
    },
  };
  return runner;
}
