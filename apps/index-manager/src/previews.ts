import type { PlanResponse, RetentionResponse } from "@lim/contracts";
import { singleFlight } from "./concurrency.ts";
import { explain } from "./explain.ts";
import { managerLimits } from "./limits.ts";
import { buildPlan, type PlanDecision } from "./plan.ts";
import { type PlanSources, readPlanState } from "./planning.ts";
import { findExpired, type RetentionFindings, type RetentionSources, taskRetention } from "./retention.ts";
import { isPlanDue, nextPlanMs, type Schedule } from "./schedule.ts";

/** What the master would do next, computed anew by whichever manager is asked. Reads everything, changes nothing. */
export interface Previews {
  /** Every list considered, by list id. */
  plan(
    signal: AbortSignal,
  ): Promise<Pick<PlanResponse, "due" | "last_plan_time" | "next_plan_time" | "decisions">>;
  retention(signal: AbortSignal): Promise<RetentionResponse>;
}

export type PreviewDeps = PlanSources & RetentionSources & { schedule: Schedule };

/**
 * Previews of planning and retention, by the same functions that the master plans and retains with. Each reads about as
 * much as the real thing, so at most one of each kind runs at a time: who asks meanwhile gets the running one's answer.
 */
export function createPreviews(deps: PreviewDeps): Previews {
  return {
    plan: singleFlight((signal) => previewPlan(deps, signal)),
    retention: singleFlight((signal) => previewRetention(deps, signal)),
  };
}

async function previewPlan(deps: PreviewDeps, signal: AbortSignal): ReturnType<Previews["plan"]> {
  const decisions = buildPlan(await readPlanState(deps, signal)).map(toAnswer);
  const nowMs = await deps.nowMs(signal);
  const lastPlanMs = await deps.store.lastPlanMs({ signal });
  return {
    due: isPlanDue(lastPlanMs, nowMs, deps.schedule),
    last_plan_time: timeOf(lastPlanMs),
    next_plan_time: timeOf(nextPlanMs(lastPlanMs, nowMs, deps.schedule)),
    decisions,
  };
}

function toAnswer(decision: PlanDecision): PlanResponse["decisions"][number] {
  return {
    list_id: decision.listId,
    action: decision.action,
    mode: decision.action === "create" ? decision.mode : null,
    reason: decision.reason,
    detail: explain(decision),
    task_id: decision.reason === "open task" ? decision.taskId : null,
    face_count: decision.faceCount,
    list_revision: decision.listRevision,
    newest_index_id: decision.newestIndexId,
    newest_revision: decision.newestRevision,
  };
}

async function previewRetention(deps: PreviewDeps, signal: AbortSignal): Promise<RetentionResponse> {
  const noted = await deps.store.missingLists({ signal });
  const found = await findExpired(deps, async () => noted, signal);
  const tasks = await deps.store.expired(await taskRetention(deps, signal));
  const deadLetters = await deps.deadLetters.count({ olderThanMs: deps.deadLetterRetentionMs, signal });
  const garbage = await deps.storage.collect({ dryRun: true, signal });
  const { maxIdsPerDryRun } = managerLimits;
  return {
    tasks: {
      count: tasks.ended,
      remove: tasks.expired,
      keep: deps.keepTasks,
      retention_s: deps.taskRetentionMs / 1000,
    },
    indexes: {
      keep_versions: deps.keepVersions,
      remove: (found?.removals ?? [])
        .slice(0, maxIdsPerDryRun)
        .map(({ indexId, label, reason }) => ({ index_id: indexId, label, reason })),
    },
    missing_lists: missingLists(found, deps.deletedListGraceMs).slice(0, maxIdsPerDryRun),
    dead_letters: {
      count: deadLetters.all,
      remove: deadLetters.old,
      retention_s: deps.deadLetterRetentionMs / 1000,
    },
    feeds: {
      retention_s: deps.feedRetentionMs / 1000,
      compact: (found?.feeds ?? [])
        .slice(0, maxIdsPerDryRun)
        .map(({ listId, upToRevision }) => ({ list_id: listId, up_to_revision: upToRevision })),
    },
    garbage: {
      staging: garbage.staging.length,
      trash: garbage.trash.length,
      marks: garbage.marks.length,
    },
  };
}

function missingLists(found: RetentionFindings | undefined, graceMs: number) {
  return [...(found?.missing ?? [])].map(([label, sinceMs]) => ({
    label,
    missing_since: timeOf(sinceMs),
    remove_time: timeOf(sinceMs === undefined ? undefined : sinceMs + graceMs),
  }));
}

function timeOf(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString();
}
