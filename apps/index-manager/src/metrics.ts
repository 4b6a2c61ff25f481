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
  };
}
