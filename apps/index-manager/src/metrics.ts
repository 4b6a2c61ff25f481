import { Counter, Gauge, Histogram, type Registry } from "@lim/service-kit";

export interface ManagerMetrics {
  isMaster: Gauge;
  planDuration: Histogram;
  plannedTasks: Counter<"reason">;
  taskTransitions: Counter<"transition">;
  taskErrors: Counter<"error_code">;
  refusals: Counter<"transition" | "refusal">;
  queued: Gauge;
  indexing: Gauge;
  indexers: Gauge<"state">;
  removedIndexes: Counter<"reason">;
  builds: Counter<"mode" | "result">;
  buildDuration: Histogram<"mode" | "result">;
  queueWait: Histogram;
  waiting: Gauge;
  oldestQueued: Gauge;
  lookupDuration: Histogram;
  planLists: Gauge<"action" | "reason">;
  removedTasks: Counter;
  deadLetters: Gauge;
  removedDeadLetters: Counter;
  compactedFeedRows: Counter;
  collected: Counter<"kind">;
  missingLists: Gauge;
  progressStreams: Gauge;
}

export function createManagerMetrics(registry: Registry): ManagerMetrics {
  const registers = [registry];
  return {
    isMaster: new Gauge({
      name: "lim_manager_is_master",
      help: "1 while this manager is the master",
      registers,
    }),
    planDuration: new Histogram({
      name: "lim_manager_plan_duration_seconds",
      help: "Time of one planning",
      buckets: [0.05, 0.25, 1, 5, 30],
      registers,
    }),
    plannedTasks: new Counter({
      name: "lim_manager_planned_tasks_total",
      help: "Tasks created by planning, by reason",
      labelNames: ["reason"],
      registers,
    }),
    taskTransitions: new Counter({
      name: "lim_manager_task_transitions_total",
      help: "Transitions of tasks that this manager carried out",
      labelNames: ["transition"],
      registers,
    }),
    taskErrors: new Counter({
      name: "lim_manager_task_errors_total",
      help: "Tasks that ended in an error, by its code",
      labelNames: ["error_code"],
      registers,
    }),
    refusals: new Counter({
      name: "lim_manager_refused_transitions_total",
      help: "Transitions that were refused because this manager's word was stale",
      labelNames: ["transition", "refusal"],
      registers,
    }),
    queued: new Gauge({
      name: "lim_manager_queued_tasks",
      help: "Pending tasks, as the master sees",
      registers,
    }),
    indexing: new Gauge({
      name: "lim_manager_indexing_tasks",
      help: "Running tasks, as the master sees",
      registers,
    }),
    indexers: new Gauge({
      name: "lim_manager_indexers",
      help: "Indexers by state, as the master sees",
      labelNames: ["state"],
      registers,
    }),
    removedIndexes: new Counter({
      name: "lim_manager_removed_indexes_total",
      help: "Indexes removed by retention",
      labelNames: ["reason"],
      registers,
    }),
    builds: new Counter({
      name: "lim_manager_builds_total",
      help: "Builds that ended or were lost, as the master saw: success, error, lost",
      labelNames: ["mode", "result"],
      registers,
    }),
    buildDuration: new Histogram({
      name: "lim_manager_build_duration_seconds",
      help: "Time from a dispatch to the end of its build",
      labelNames: ["mode", "result"],
      buckets: [1, 5, 30, 120, 600, 3_600, 14_400],
      registers,
    }),
    queueWait: new Histogram({
      name: "lim_manager_queue_wait_seconds",
      help: "Time from the creation of a task to its first dispatch",
      buckets: [0.5, 2, 10, 60, 600, 3_600, 14_400],
      registers,
    }),
    waiting: new Gauge({
      name: "lim_manager_waiting_tasks",
      help: "Pending tasks that pause before another attempt, as the master sees",
      registers,
    }),
    oldestQueued: new Gauge({
      name: "lim_manager_oldest_queued_seconds",
      help: "Longest time that a task which may be dispatched has been pending, as the master sees",
      registers,
    }),
    lookupDuration: new Histogram({
      name: "lim_manager_lookup_duration_seconds",
      help: "Time of one lookup",
      buckets: [0.01, 0.05, 0.25, 1, 5],
      registers,
    }),
    planLists: new Gauge({
      name: "lim_manager_plan_lists",
      help: "Lists that the last plan of this manager considered, by what it decided",
      labelNames: ["action", "reason"],
      registers,
    }),
    removedTasks: new Counter({
      name: "lim_manager_removed_tasks_total",
      help: "Records of ended tasks removed by retention",
      registers,
    }),
    deadLetters: new Gauge({
      name: "lim_manager_dead_letters",
      help: "Match requests that were given up and are kept, as the master sees",
      registers,
    }),
    removedDeadLetters: new Counter({
      name: "lim_manager_removed_dead_letters_total",
      help: "Match requests that were given up, removed by retention",
      registers,
    }),
    compactedFeedRows: new Counter({
      name: "lim_manager_compacted_feed_rows_total",
      help: "Rows of change feeds removed by retention",
      registers,
    }),
    collected: new Counter({
      name: "lim_manager_collected_total",
      help: "Left-overs collected in the storage: staging, trash, marks",
      labelNames: ["kind"],
      registers,
    }),
    missingLists: new Gauge({
      name: "lim_manager_missing_lists",
      help: "Labels that have indexes and no list, as the master sees",
      registers,
    }),
    progressStreams: new Gauge({
      name: "lim_manager_progress_streams",
      help: "Clients that follow a task by server-sent events",
      registers,
    }),
  };
}
