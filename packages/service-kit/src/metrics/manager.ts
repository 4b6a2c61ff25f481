import type { MetricSpecs } from "./spec.ts";

const ofMaster = "as the master sees";
const results = "success, error, lost";

/** Of the Index Manager. */
export const managerMetrics = {
  lim_manager_is_master: { type: "gauge", help: "1 while this manager is the master", unit: "1" },
  lim_manager_leadership_total: {
    type: "counter",
    help: "Terms of this manager as master, by how they began and ended",
    unit: "terms",
    labels: {
      event: "acquired; then lost (lease or epoch), failed (its work threw) or released (told to stop)",
    },
  },
  lim_manager_plan_duration_seconds: {
    type: "histogram",
    help: "Time of one planning",
    unit: "seconds",
    buckets: [0.05, 0.25, 1, 5, 30],
  },
  lim_manager_plan_lists: {
    type: "gauge",
    help: "Lists that the last plan of this manager considered, by what it decided",
    unit: "lists",
    labels: { action: "create, skip", reason: "why, as GET /1/plan says it" },
  },
  lim_manager_planned_tasks_total: {
    type: "counter",
    help: "Tasks created by planning, by reason",
    unit: "tasks",
    labels: { reason: "why, as GET /1/plan says it" },
  },
  lim_manager_index_behind_revisions_max: {
    type: "gauge",
    help: "Revisions that the newest index of a list lacked at the last plan of this manager, of the list furthest ahead",
    unit: "revisions",
  },
  lim_manager_task_transitions_total: {
    type: "counter",
    help: "Transitions of tasks that this manager carried out",
    unit: "transitions",
    labels: { transition: "dispatch, progress, finish, requeue, adopt" },
  },
  lim_manager_refused_transitions_total: {
    type: "counter",
    help: "Transitions that were refused because this manager's word was stale (fenced)",
    unit: "transitions",
    labels: {
      transition: "as above; also create, note_missing_lists, remove_index",
      refusal: "unknown_task, wrong_status, stale_attempt, stale_epoch",
    },
  },
  lim_manager_ended_tasks_total: {
    type: "counter",
    help: "Tasks that this manager brought to their end",
    unit: "tasks",
    labels: { status: "success, error" },
  },
  lim_manager_task_errors_total: {
    type: "counter",
    help: "Tasks that ended in an error, by its code",
    unit: "tasks",
    labels: { error_code: "26xxx" },
  },
  lim_manager_queued_tasks: { type: "gauge", help: `Pending tasks, ${ofMaster}`, unit: "tasks" },
  lim_manager_waiting_tasks: {
    type: "gauge",
    help: `Pending tasks that pause before another attempt, ${ofMaster}`,
    unit: "tasks",
  },
  lim_manager_oldest_queued_seconds: {
    type: "gauge",
    help: `Longest time that a task which may be dispatched has been pending, ${ofMaster}`,
    unit: "seconds",
  },
  lim_manager_indexing_tasks: { type: "gauge", help: `Running tasks, ${ofMaster}`, unit: "tasks" },
  lim_manager_indexing_phase_tasks: {
    type: "gauge",
    help: `Running tasks by the phase of their build, ${ofMaster}`,
    unit: "tasks",
    labels: { phase: "snapshot, build, verify, store, publish; unknown before the first word of it" },
  },
  lim_manager_queue_wait_seconds: {
    type: "histogram",
    help: "Time from the creation of a task to its first dispatch",
    unit: "seconds",
    buckets: [0.5, 2, 10, 60, 600, 3_600, 14_400],
  },
  lim_manager_builds_total: {
    type: "counter",
    help: "Builds that ended or were lost, as the master saw",
    unit: "builds",
    labels: { mode: "rebuild, update", result: results },
  },
  lim_manager_build_duration_seconds: {
    type: "histogram",
    help: "Time from a dispatch to the end of its build",
    unit: "seconds",
    labels: { mode: "rebuild, update", result: results },
    buckets: [1, 5, 30, 120, 600, 3_600, 14_400],
  },
  lim_manager_indexers: {
    type: "gauge",
    help: `Indexers by state, ${ofMaster}`,
    unit: "indexers",
    labels: { state: "idle, building, draining, late, silent" },
  },
  lim_manager_lookup_duration_seconds: {
    type: "histogram",
    help: "Time of one lookup",
    unit: "seconds",
    buckets: [0.01, 0.05, 0.25, 1, 5],
  },
  lim_manager_removed_indexes_total: {
    type: "counter",
    help: "Indexes removed by retention",
    unit: "indexes",
    labels: { reason: "outdated, list deleted" },
  },
  lim_manager_removed_tasks_total: {
    type: "counter",
    help: "Records of ended tasks removed by retention",
    unit: "tasks",
  },
  lim_manager_dead_letters: {
    type: "gauge",
    help: `Match requests that were given up and are kept, ${ofMaster}`,
    unit: "requests",
  },
  lim_manager_removed_dead_letters_total: {
    type: "counter",
    help: "Match requests that were given up, removed by retention",
    unit: "requests",
  },
  lim_manager_compacted_feed_rows_total: {
    type: "counter",
    help: "Rows of change feeds removed by retention",
    unit: "rows",
  },
  lim_manager_collected_total: {
    type: "counter",
    help: "Left-overs collected in the storage",
    unit: "folders and marks",
    labels: { kind: "staging, trash, marks" },
  },
  lim_manager_missing_lists: {
    type: "gauge",
    help: `Labels that have indexes and no list, ${ofMaster}`,
    unit: "lists",
  },
  lim_manager_progress_streams: {
    type: "gauge",
    help: "Clients that follow a task by server-sent events",
    unit: "clients",
  },
} as const satisfies MetricSpecs;
