import { metricsIn, type Registry } from "@lim/service-kit";

export type ManagerMetrics = ReturnType<typeof createManagerMetrics>;

export function createManagerMetrics(registry: Registry) {
  const { counter, gauge, histogram } = metricsIn(registry);
  return {
    isMaster: gauge("lim_manager_is_master"),
    leadership: counter("lim_manager_leadership_total"),
    planDuration: histogram("lim_manager_plan_duration_seconds"),
    planLists: gauge("lim_manager_plan_lists"),
    plannedTasks: counter("lim_manager_planned_tasks_total"),
    indexBehind: gauge("lim_manager_index_behind_revisions_max"),
    taskTransitions: counter("lim_manager_task_transitions_total"),
    refusals: counter("lim_manager_refused_transitions_total"),
    endedTasks: counter("lim_manager_ended_tasks_total"),
    taskErrors: counter("lim_manager_task_errors_total"),
    queued: gauge("lim_manager_queued_tasks"),
    waiting: gauge("lim_manager_waiting_tasks"),
    oldestQueued: gauge("lim_manager_oldest_queued_seconds"),
    indexing: gauge("lim_manager_indexing_tasks"),
    indexingPhases: gauge("lim_manager_indexing_phase_tasks"),
    queueWait: histogram("lim_manager_queue_wait_seconds"),
    builds: counter("lim_manager_builds_total"),
    buildDuration: histogram("lim_manager_build_duration_seconds"),
    indexers: gauge("lim_manager_indexers"),
    lookupDuration: histogram("lim_manager_lookup_duration_seconds"),
    removedIndexes: counter("lim_manager_removed_indexes_total"),
    removedTasks: counter("lim_manager_removed_tasks_total"),
    deadLetters: gauge("lim_manager_dead_letters"),
    removedDeadLetters: counter("lim_manager_removed_dead_letters_total"),
    compactedFeedRows: counter("lim_manager_compacted_feed_rows_total"),
    collected: counter("lim_manager_collected_total"),
    missingLists: gauge("lim_manager_missing_lists"),
    progressStreams: gauge("lim_manager_progress_streams"),
  };
}
