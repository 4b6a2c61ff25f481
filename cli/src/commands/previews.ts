import type { RetentionResponse } from "@lim/contracts";
import { formatFields, formatTable } from "../output.ts";
import { counted, type ManagerCommand, noteMore, print } from "./manager-command.ts";

/** What the next planning would do with each list, and why. */
export async function showPlan(
  command: ManagerCommand & {
    listId: string | undefined;
    action: "create" | "skip" | undefined;
    limit: number;
  },
): Promise<number> {
  const { api, listId, action, limit, signal } = command;
  const plan = await api.plan({ list_id: listId, action }, { limit, signal });
  print(command, plan, () => {
    const head = formatFields([
      ["plan is due", plan.due ? "yes, at the master's next look" : "no"],
      ["last plan", plan.last_plan_time ?? "none"],
      ["next plan", plan.next_plan_time ?? "none: the schedule names no moment in the next 400 days"],
      ["lists", `${counted(plan.count, "list")}: ${plan.creates} to build, ${plan.skips} to skip`],
    ]);
    if (plan.decisions.length === 0) return action === undefined ? `${head}\n\n${whyNone(listId)}` : head;
    const table = formatTable(
      ["list", "action", "mode", "reason", "detail"],
      plan.decisions.map((decision) => [
        decision.list_id,
        decision.action,
        decision.mode ?? "",
        decision.reason,
        decision.detail,
      ]),
    );
    return `${head}\n\n${table}`;
  });
  noteMore({ items: plan.decisions, total: undefined, nextCursor: plan.next_cursor }, "lists");
  return 0;
}

/** The plan leaves out what it does not look at, and so does its answer. */
function whyNone(listId: string | undefined): string {
  const which = listId === undefined ? "No list is looked at" : `List ${listId} is not looked at`;
  return `${which}: planning looks at lists of min_indexing_list_size faces and more (lim up: --min-list),\nor at those that the manager's setting lists names. lim tasks create <list> builds the index of any list now.`;
}

/** What the next run of retention would remove, and why. */
export async function showRetention(command: ManagerCommand): Promise<number> {
  const retention = await command.api.retention({ signal: command.signal });
  print(command, retention, () => retentionText(retention));
  return 0;
}

const days = (seconds: number) =>
  seconds >= 172_800 ? `${Math.round(seconds / 8_640) / 10} days` : `${Math.round(seconds / 360) / 10} h`;

function retentionText({
  tasks,
  indexes,
  missing_lists,
  dead_letters,
  feeds,
  garbage,
}: RetentionResponse): string {
  const parts = [
    formatFields([
      [
        "tasks",
        `${tasks.remove} of ${counted(tasks.count, "ended one")} would go (kept: the last ${tasks.keep}, ${days(tasks.retention_s)})`,
      ],
      ["indexes", `${indexes.remove.length} would go (kept: the newest ${indexes.keep_versions} of a list)`],
      [
        "missing lists",
        counted(missing_lists.length, "label has indexes but no list", "labels have indexes but no list"),
      ],
      [
        "dead letters",
        `${dead_letters.remove} of ${dead_letters.count} would go (kept: ${days(dead_letters.retention_s)})`,
      ],
      [
        "change feeds",
        `${counted(feeds.compact.length, "feed")} would be shortened (kept: ${days(feeds.retention_s)})`,
      ],
      [
        "left-overs",
        `${garbage.staging} staging folders, ${garbage.trash} removed indexes, ${garbage.marks} marks would go`,
      ],
    ]),
  ];
  if (indexes.remove.length > 0)
    parts.push(
      formatTable(
        ["index", "label", "reason"],
        indexes.remove.map(({ index_id, label, reason }) => [index_id, label, reason]),
      ),
    );
  if (missing_lists.length > 0)
    parts.push(
      formatTable(
        ["label without a list", "missing since", "its indexes go"],
        missing_lists.map((missing) => [
          missing.label,
          missing.missing_since ?? "not noted yet",
          missing.remove_time ?? "",
        ]),
      ),
    );
  if (feeds.compact.length > 0)
    parts.push(
      formatTable(
        ["list whose feed is shortened", "up to revision"],
        feeds.compact.map(({ list_id, up_to_revision }) => [list_id, String(up_to_revision)]),
      ),
    );
  return parts.join("\n\n");
}
