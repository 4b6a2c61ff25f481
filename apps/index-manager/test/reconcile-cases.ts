import { randomUUID } from "node:crypto";
import type { IndexerState, LimError, Task } from "@lim/contracts";
import type { Observed, ObservedIndexer } from "../src/reconcile.ts";

/** Pieces of what a lookup observes, with one task and one indexer unless told otherwise. */
export const time = "2026-11-21T10:00:00.000Z";
export const endTime = "2026-11-21T10:05:00.000Z";
export const origins = ["http://a:1", "http://b:2", "http://c:3"] as const;
export const origin = origins[0];

export const task = (change: Partial<Task> = {}): Task => ({
  task_id: "t1",
  status: "indexing",
  create_time: time,
  start_time: time,
  end_time: null,
  indexer: origin,
  error: null,
  content: { list_id: "l1" },
  mode: "rebuild",
  trigger: "plan",
  priority: "default",
  not_before: null,
  attempt: 1,
  progress: null,
  skipped: null,
  ...change,
});

export const pending = task({
  task_id: "t2",
  status: "pending",
  indexer: null,
  attempt: 0,
  content: { list_id: "l2" },
});

export const idle = (change: Partial<IndexerState> = {}): IndexerState => ({
  boot_id: randomUUID(),
  state: "idle",
  task_id: null,
  list_id: null,
  attempt: null,
  mode: null,
  start_time: null,
  progress: null,
  outcomes: [],
  ...change,
});

export const building = (taskId: string, attempt: number, change: Partial<IndexerState> = {}): IndexerState =>
  idle({
    state: "building",
    task_id: taskId,
    list_id: "l1",
    attempt,
    mode: "update",
    start_time: time,
    ...change,
  });

export const outcome = (error: LimError | null, attempt = 1) => ({
  task_id: "t1",
  list_id: "l1",
  attempt,
  status: error ? ("error" as const) : ("success" as const),
  error: error?.toBody() ?? null,
  end_time: endTime,
  skipped: error ? { wrong_length: 1, not_finite: 2, zero_norm: 3 } : null,
});

export const at = (
  state: IndexerState | undefined,
  change: Partial<ObservedIndexer> = {},
): ObservedIndexer => ({
  origin,
  state,
  late: false,
  bootId: state?.boot_id,
  known: true,
  avoid: false,
  ...change,
});

export const late = (change: Partial<ObservedIndexer> = {}): ObservedIndexer =>
  at(undefined, { late: true, ...change });

export const observed = (change: Partial<Observed> = {}): Observed => ({
  indexers: [],
  indexing: [],
  queue: [],
  otherRecords: new Map(),
  published: new Set(),
  removed: new Set(),
  silentLookups: new Map(),
  nowMs: Date.parse(time),
  ...change,
});
