import { type IndexSummary, LimError } from "@lim/contracts";
import { formatTable } from "../output.ts";
import {
  counted,
  type ManagerCommand,
  mayRemove,
  noteMore,
  print,
  type RemovalConsent,
} from "./manager-command.ts";

export async function listIndexes(
  command: ManagerCommand & {
    label: string | undefined;
    descriptorVersion: number | undefined;
    limit: number;
  },
): Promise<number> {
  const { api, label, descriptorVersion, limit, signal } = command;
  const pages = await api.indexes({ label, descriptor_version: descriptorVersion }, { limit, signal });
  const { items: indexes, total = indexes.length, nextCursor } = pages;
  print(command, { count: total, indexes, next_cursor: nextCursor }, () => indexTable(indexes));
  noteMore(pages, "indexes");
  return 0;
}

export async function listRelevantIndexes(
  command: ManagerCommand & { label: string | undefined },
): Promise<number> {
  const indexes = await command.api.relevantIndexes({ label: command.label }, { signal: command.signal });
  print(command, { count: indexes.length, indexes }, () => indexTable(indexes));
  return 0;
}

export interface IndexRemoval extends ManagerCommand, RemovalConsent {
  /** One index, or several by `policy`. */
  indexId: string | undefined;
  policy: "all" | "outdated" | undefined;
  label: string | undefined;
  dryRun: boolean;
}

export async function removeIndexes(command: IndexRemoval): Promise<number> {
  const { indexId, policy, label } = command;
  if (policy !== undefined && indexId === undefined) return removeByPolicy({ ...command, policy });
  if (indexId === undefined || policy !== undefined)
    throw new LimError("bad_input", "give one index id, or else --outdated or --all");
  if (label !== undefined || command.dryRun)
    throw new LimError(
      "bad_input",
      "--label and --dry-run go with --outdated or --all, not with an index id",
    );
  await command.api.removeIndex(indexId, { signal: command.signal });
  print(command, { removed: indexId }, () => `index ${indexId} is removed`);
  return 0;
}

async function removeByPolicy(command: IndexRemoval & { policy: "all" | "outdated" }): Promise<number> {
  const { api, policy, label, signal } = command;
  if (command.dryRun || !command.yes) {
    const found = await api.removeIndexes({ policy, label, dry_run: true, signal });
    const what = counted(found.count, "index", "indexes");
    if (command.dryRun) {
      print(command, found, () =>
        found.count === 0
          ? `no index matches${leftAlone(found.busy_labels)}`
          : `${indexTable(found.indexes)}\nwould remove ${what}${leftAlone(found.busy_labels)}`,
      );
      return 0;
    }
    const removal = { what, show: () => indexTable(found.indexes) };
    if (found.count > 1 && !(await mayRemove(command, removal, signal))) {
      console.error("nothing was removed");
      return 1;
    }
  }
  const removed = await api.removeIndexes({ policy, label, dry_run: false, signal });
  print(
    command,
    removed,
    () => `removed ${counted(removed.count, "index", "indexes")}${leftAlone(removed.busy_labels)}`,
  );
  return 0;
}

function leftAlone(labels: readonly string[]): string {
  if (labels.length === 0) return "";
  return `; left alone, because a task may be building from them: those of ${labels.join(", ")}`;
}

function indexTable(indexes: readonly IndexSummary[]): string {
  return formatTable(
    ["index", "label", "faces", "revision", "MiB", "engine", "mode", "created"],
    indexes.map((index) => [
      index.index_id,
      index.label,
      String(index.count),
      String(index.revision),
      (index.size / 2 ** 20).toFixed(1),
      index.engine,
      index.mode,
      index.create_time,
    ]),
  );
}
