import type { IndexerState } from "@lim/contracts";
import { Registry } from "@lim/service-kit";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createDispatcher, type DispatchDeps } from "../src/dispatching.ts";
import { createManagerMetrics } from "../src/metrics.ts";
import {
  countSilence,
  type Observed,
  type ObservedIndexer,
  reconcile,
  silenceKey,
} from "../src/reconcile.ts";
import { time } from "./reconcile-cases.ts";
import {
  createModelIndexer,
  createModelStorage,
  createModelStore,
  type DispatchFate,
  type ModelIndexer,
} from "./simulated-world.ts";

/**
 * The decisions of reconcile and the commands of the dispatcher in a modelled world, step by step: in each step things
 * happen, builds go on, and one lookup is made. Answers may be late by any number of steps, and are then as old.
 */
const indexerCount = 3;
const quietWithin = 600;

type Event =
  | { kind: "crash" | "restart" | "drain"; indexer: number }
  | { kind: "hang" | "slow"; indexer: number; steps: number }
  | { kind: "dispatch"; indexer: number; fate: ModelIndexer["fate"] }
  | { kind: "remove"; taskNumber: number }
  | { kind: "new master" }
  | { kind: "flush" };
type Timed = Event & { step: number };

interface Plan {
  tasks: number;
  buildSteps: number;
  events: Timed[];
}

/** Steps until a hanging question fails: late, late, then silent. */
const questionSteps = 2;

function createWorld({ tasks, buildSteps }: Plan) {
  let step = 0;
  const store = createModelStore(() => step);
  const disk = createModelStorage();
  const completions = new Map<string, number>();
  const builds = new Map<string, number>();
  const hungUntil = new Map<ModelIndexer, number>();
  let builtAgain = 0;
  const taken = (id: string) => {
    builds.set(id, (builds.get(id) ?? 0) + 1);
    if (disk.published.has(id)) builtAgain++;
  };
  const indexers = Array.from({ length: indexerCount }, (_, i) =>
    createModelIndexer(`http://i${i}:1`, disk, { buildSteps, taken }),
  );
  for (let i = 0; i < tasks; i++) store.create(`t${i}`);
  const at = (origin: string) => indexers.find((one) => one.origin === origin);
  let master = newMaster();

  function newMaster() {
    const deps: DispatchDeps = {
      store: store.store,
      storage: disk.storage,
      metrics: createManagerMetrics(new Registry()),
      log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
      build: { engine: "hnsw", params: { m: 16, ef_construction: 200 }, descriptor_version: 1, dim: 8 },
      // In steps.
      retryBackoffMs: 2,
      nowMs: async () => Date.now(),
      client: {
        build: async (origin, request) => at(origin)?.build(request) ?? never(),
        stop: async (origin, { task_id, attempt }) => at(origin)?.stop(task_id, attempt) ?? never(),
      },
    };
    const commands: Promise<void>[] = [];
    const leadership = { epoch: 1, signal: new AbortController().signal };
    return {
      commands,
      dispatcher: createDispatcher(deps, leadership, { command: (_, send) => void commands.push(send()) }),
      silent: new Map<string, number>(),
      lines: new Map<string, { askedStep: number; answer: IndexerState }>(),
      boots: new Map<string, string>(),
    };
  }

  function observeIndexer(origin: string): ObservedIndexer {
    const { lines, boots } = master;
    const indexer = at(origin) ?? never();
    const told = (state: IndexerState | undefined, late = false): ObservedIndexer => {
      if (state) boots.set(origin, state.boot_id);
      return { origin, state, late, bootId: boots.get(origin), known: true, avoid: false };
    };
    const open = lines.get(origin);
    if (!open) {
      if (!indexer.up) return told(undefined);
      if (indexer.hangs === 0 && indexer.slow === 0) return told(indexer.state());
      lines.set(origin, { askedStep: step, answer: indexer.state() });
      return told(undefined, true);
    }
    const failed = !indexer.up || step - open.askedStep > questionSteps;
    if (indexer.hangs > 0 && !failed) return told(undefined, true);
    lines.delete(origin);
    return told(failed ? undefined : open.answer);
  }

  async function lookup() {
    const seen = indexers.map((one) => observeIndexer(one.origin));
    const indexing = store.indexing();
    master.silent = countSilence(master.silent, indexing, seen);
    const otherRecords: [string, NonNullable<ReturnType<typeof store.record>>][] = [];
    for (const { state } of seen) {
      const record = state?.task_id ? store.record(state.task_id) : undefined;
      if (record && record.status !== "indexing") otherRecords.push([record.task_id, record]);
    }
    const observed: Observed = {
      indexers: seen,
      indexing,
      queue: store.ready(),
      otherRecords: new Map(otherRecords),
      published: disk.published,
      removed: disk.removed,
      silentLookups: new Map(indexing.map((one) => [one.task_id, master.silent.get(silenceKey(one)) ?? 0])),
      nowMs: Date.parse(time),
    };
    const running = new Map(indexing.map((one) => [one.task_id, one]));
    for (const action of reconcile(observed))
      await master.dispatcher.apply(action, "taskId" in action ? running.get(action.taskId) : undefined);
    await Promise.all(master.commands.splice(0));
  }

  function happen(event: Event) {
    const indexer = "indexer" in event ? indexers[event.indexer] : undefined;
    if (event.kind === "crash") indexer?.crash();
    else if (event.kind === "restart") indexer?.restart();
    else if (event.kind === "drain") indexer?.drain();
    else if (event.kind === "new master") master = newMaster();
    else if (event.kind === "flush") store.flush();
    else if (event.kind === "remove") {
      const id = `t${event.taskNumber}`;
      // As the API does it: the mark first, then the record; nothing is removed that has ended.
      if (!store.open().some((one) => one.task_id === id)) return;
      disk.removed.add(id);
      store.remove(id);
    } else if (indexer && event.kind === "hang") {
      // Between two of them it is heard, so that they are not one long one.
      if (step < (hungUntil.get(indexer) ?? 0) + 2 * questionSteps) return;
      indexer.hangs = event.steps;
      hungUntil.set(indexer, step + event.steps);
    } else if (indexer && event.kind === "slow") indexer.slow = event.steps;
    else if (indexer && event.kind === "dispatch") indexer.fate = event.fate;
  }

  return {
    store,
    disk,
    completions,
    builds,
    builtAgain: () => builtAgain,
    indexers,
    happen,
    async step() {
      for (const indexer of indexers)
        indexer.work((id) => completions.set(id, (completions.get(id) ?? 0) + 1));
      await lookup();
      for (const indexer of indexers) {
        indexer.hangs = Math.max(0, indexer.hangs - 1);
        indexer.slow = Math.max(0, indexer.slow - 1);
      }
      step++;
    },
    isQuiet: () =>
      store.open().length === 0 && indexers.every((one) => !one.up || one.state().task_id === null),
  };
}

function never(): never {
  throw new Error("there is no such indexer");
}

/** Runs the events, then lets one indexer at least be well, and looks up until all is quiet. */
async function run(plan: Plan) {
  const world = createWorld(plan);
  const lastStep = Math.max(0, ...plan.events.map((event) => event.step));
  for (let step = 0; step <= lastStep; step++) {
    for (const event of plan.events) if (event.step === step) world.happen(event);
    await world.step();
  }
  for (const indexer of world.indexers) indexer.fate = { what: "taken", times: 0 };
  world.indexers[0]?.restart();
  let steps = 0;
  while (!world.isQuiet() && steps < quietWithin) {
    await world.step();
    steps++;
  }
  return { ...world, quiet: world.isQuiet() };
}

const indexer = fc.nat(indexerCount - 1);
const fateOf = (...fates: DispatchFate[]) =>
  fc.record({ what: fc.constantFrom(...fates), times: fc.integer({ min: 1, max: 9 }) });
const gentle = fc.oneof(
  fc.record({ kind: fc.constant("slow" as const), indexer, steps: fc.integer({ min: 1, max: 30 }) }),
  fc.record({ kind: fc.constant("hang" as const), indexer, steps: fc.integer({ min: 1, max: 11 }) }),
  fc.record({
    kind: fc.constant("dispatch" as const),
    indexer,
    fate: fateOf("refused", "taken, word lost"),
  }),
);
const rough = fc.oneof(
  gentle,
  fc.record({ kind: fc.constantFrom("crash" as const, "restart" as const, "drain" as const), indexer }),
  fc.record({ kind: fc.constant("hang" as const), indexer, steps: fc.integer({ min: 1, max: 60 }) }),
  fc.record({ kind: fc.constant("dispatch" as const), indexer, fate: fateOf("lost") }),
  fc.record({ kind: fc.constant("remove" as const), taskNumber: fc.nat(5) }),
  fc.constant({ kind: "new master" as const }),
);
const planOf = (event: fc.Arbitrary<Event>): fc.Arbitrary<Plan> =>
  fc.record({
    tasks: fc.integer({ min: 1, max: 6 }),
    buildSteps: fc.integer({ min: 1, max: 50 }),
    events: fc.array(
      fc.tuple(event, fc.nat(120)).map(([what, step]) => ({ ...what, step })),
      { maxLength: 25 },
    ),
  });
const options = { numRuns: 300, seed: 20_261_121 };

describe("the control loop in a simulated world", () => {
  it("I3: every task ends exactly once, whatever crashes, hangs, restarts or is removed", async () => {
    await fc.assert(
      fc.asyncProperty(planOf(rough), async (plan) => {
        const { quiet, disk, store, builtAgain } = await run(plan);
        expect(quiet).toBe(true);
        expect(builtAgain()).toBe(0);
        for (let i = 0; i < plan.tasks; i++) {
          const id = `t${i}`;
          expect(store.ends.get(id) ?? 0).toBe(disk.removed.has(id) ? 0 : 1);
          const record = store.record(id);
          if (record?.status === "success") expect(disk.published.has(id)).toBe(true);
          if (disk.published.has(id) && record) expect(record.status).toBe("success");
        }
      }),
      options,
    );
  });

  it("I3: slow, hanging and refusing indexers cost no attempt: each task is built once, and succeeds", async () => {
    await fc.assert(
      fc.asyncProperty(planOf(gentle), async (plan) => {
        // The restart at the end is not gentle.
        const last = { kind: "slow" as const, indexer: 0, steps: 1, step: 700 };
        const { quiet, store, completions, builds } = await run({ ...plan, events: [...plan.events, last] });
        expect(quiet).toBe(true);
        for (let i = 0; i < plan.tasks; i++) {
          expect(store.record(`t${i}`)?.status).toBe("success");
          expect(completions.get(`t${i}`)).toBe(1);
          expect(builds.get(`t${i}`)).toBe(1);
        }
      }),
      options,
    );
  });

  it("I9: after a flush all that still builds is adopted or stopped, and all comes to rest", async () => {
    const flushing = fc.oneof(gentle, rough, fc.constant({ kind: "flush" as const }));
    await fc.assert(
      fc.asyncProperty(planOf(flushing), async (plan) => {
        const { quiet, store, disk, builtAgain } = await run(plan);
        expect(quiet).toBe(true);
        for (let i = 0; i < plan.tasks; i++) {
          const record = store.record(`t${i}`);
          if (record && disk.published.has(record.task_id)) expect(record.status).toBe("success");
        }
        expect(builtAgain()).toBe(0);
      }),
      options,
    );
  });
});
