import type { ModeCause, PlanDecision, Removals } from "./plan.ts";

/** A decision's reason with its numbers, one sentence for people. Pure. */
export function explain(decision: PlanDecision): string {
  const { newestIndexId, newestRevision, listRevision, faceCount } = decision;
  const index = `the newest index, ${newestIndexId},`;
  switch (decision.reason) {
    case "list gone":
      return "there is no list of this id";
    case "open task":
      return `task ${decision.taskId} is open for it`;
    case "too small":
      return decision.leastFaces === 1
        ? "it has no face"
        : `it has ${count(faceCount, "face")}, fewer than min_indexing_list_size ${number(decision.leastFaces)}`;
    case "unchanged":
      return `${index} is at revision ${number(newestRevision)}, as is the list`;
    case "missing":
      return `it has ${count(faceCount, "face")} and no index`;
    case "other descriptor version":
      return `it has ${count(faceCount, "face")}, and indexes of other descriptor versions only`;
    case "history differs":
      return `${index} is of another history: the database was restored since`;
    case "ahead of its list":
      return `${index} is at revision ${number(newestRevision)}, the list only at ${number(listRevision)}: the database was restored since`;
    case "feed compacted":
      return `${index} is at revision ${number(newestRevision)}, but the list's changes are kept from ${number(decision.oldestKeptRevision)} on`;
    case "stale":
      return `${behind(decision)}; ${because(decision.cause)}`;
    default:
      return decision satisfies never;
  }
}

function behind({ newestIndexId, newestRevision, listRevision }: PlanDecision): string {
  const changes = (listRevision ?? 0) - (newestRevision ?? 0);
  return `the newest index, ${newestIndexId}, is at revision ${number(newestRevision)}, ${count(changes, "change")} behind the list`;
}

function because(cause: ModeCause): string {
  switch (cause.kind) {
    case "rebuild by default":
      return "rebuild_rules.default asks for a rebuild";
    case "build settings changed":
      return "its engine, parameters or dimension are not those of new indexes";
    case "update by default":
      return "rebuild_rules.default asks for an update";
    case "removals within limits":
      return `${share(cause.removals)}, within the limits of an update`;
    case "too many removals":
      return `${share(cause.removals)}, above max_removal_for_rebuild ${number(cause.limit)}`;
    case "too large a share removed":
      return `${share(cause.removals)}, above max_removal_ratio ${cause.limit}`;
    default:
      return cause satisfies never;
  }
}

/** Replacements are removals too, so that more than all faces may have been removed. */
function share({ removed, of }: Removals): string {
  const percent = of === 0 ? "" : ` (${Number(((100 * removed) / of).toPrecision(3))} %)`;
  const verb = removed === 1 ? "was" : "were";
  return `${number(removed)} of ${count(of, "face")} ${verb} removed since the last full build${percent}`;
}

function number(value: number | null): string {
  return value === null ? "unknown" : value.toLocaleString("en-US");
}

function count(value: number | null, what: string): string {
  return `${number(value)} ${what}${value === 1 ? "" : "s"}`;
}
