import { stat } from "node:fs/promises";
import { join } from "node:path";
import { LimError } from "@lim/contracts";
import type { FacesDb, ListState } from "@lim/faces-db";
import { type IndexStorage, newestOf, type PublishedIndex, type StorageListing } from "@lim/index-storage";
import { counted } from "../commands/manager-command.ts";
import { checkIndex, isElsewhere } from "./check-index.ts";
import { checkLimits } from "./limits.ts";
import { type CheckReport, exitCodeOf, type Finding, finding, type IndexCheck, summarise } from "./report.ts";

/** What to check: one index, those of a label, or all of the storage. */
export type Scope = { indexId: string } | { label: string } | "all";

export interface CheckRun {
  scope: Scope;
  storage: IndexStorage;
  db: Pick<FacesDb, "openSnapshot" | "readPacket" | "listStates"> | undefined;
  sample: number;
  seed: number;
  strict: boolean;
  signal: AbortSignal;
  /** Faces of indexes that are checked, of how many, and what is being done. */
  onProgress: (done: number, total: number, doing: string) => void;
}

/** Throws `storage_unavailable` where there is no storage: opening one would make it. */
export async function assertStorageThere(root: string): Promise<void> {
  const isFolder = (path: string) =>
    stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
  if (!(await isFolder(root)))
    throw new LimError("storage_unavailable", `LIM_STORAGE_ROOT: no folder ${root}`);
  if (!(await isFolder(join(root, ".staging"))))
    throw new LimError("bad_settings", `LIM_STORAGE_ROOT: ${root} is no index storage`);
}

/** Checks what `scope` names; throws `not_found` for an index that is not there. What ends it early is in the report. */
export async function runChecks(run: CheckRun): Promise<CheckReport> {
  const startedMs = performance.now();
  const indexes: IndexCheck[] = [];
  const storage: Finding[] = [];
  let failure: CheckReport["failure"] = null;
  try {
    await checkAll(run, indexes, storage);
  } catch (thrown) {
    if (!isElsewhere(thrown) || run.signal.aborted) throw thrown;
    failure = LimError.from(thrown).toBody();
  }
  const summary = summarise(indexes, storage, performance.now() - startedMs);
  return {
    report_version: 1,
    time: new Date().toISOString(),
    storage_root: run.storage.root,
    seed: run.seed,
    sample: run.sample,
    database: run.db !== undefined,
    indexes,
    storage,
    summary,
    failure,
    exit_code: exitCodeOf({ ...summary, failed: failure !== null }, run.strict),
  };
}

function inScope(scope: Scope, one: { label: string; indexId: string }): boolean {
  if (scope === "all") return true;
  return "label" in scope ? one.label === scope.label : one.indexId === scope.indexId;
}

async function checkAll(run: CheckRun, checks: IndexCheck[], storage: Finding[]): Promise<void> {
  const { scope, db, signal } = run;
  const listing = await run.storage.list(
    scope !== "all" && "label" in scope ? { label: scope.label, signal } : { signal },
  );
  const indexes = listing.indexes.filter((one) => inScope(scope, one));
  const refused = listing.refused.filter((one) => inScope(scope, one));
  if (scope !== "all" && indexes.length + refused.length === 0)
    throw new LimError(
      "not_found",
      "label" in scope ? `no index of list ${scope.label}` : `no index ${scope.indexId} in the storage`,
    );
  for (const one of refused)
    if (one.indexId !== "") checks.push(refusedCheck(one));
    else storage.push(finding("error", "label_unreadable", `${one.label}: ${one.reason}`));
  const lists = new Map<string, ListState>();
  const listIds = [...new Set(indexes.map(({ label }) => label))];
  if (db && listIds.length > 0)
    for (const state of await db.listStates({ listIds, signal })) lists.set(state.listId, state);
  if (scope === "all") storage.push(...(await judgeStorage(run, db && listIds, lists)));
  const total = indexes.reduce((sum, { meta }) => sum + meta.count, 0);
  let before = 0;
  for (const published of indexes) {
    const { count } = published.meta;
    const newest = isNewest(listing, published, lists.get(published.label));
    checks.push(
      await checkIndex(
        {
          ...run,
          onProgress: (share, doing) =>
            run.onProgress(before + Math.floor(share * count), total, `${doing} of ${published.indexId}`),
        },
        published,
        newest,
      ),
    );
    before += count;
    run.onProgress(before, total, "");
  }
}

function isNewest(listing: StorageListing, { label, indexId, meta }: PublishedIndex, list?: ListState) {
  return newestOf(listing, label, meta.descriptor_version, list)?.indexId === indexId;
}

function refusedCheck({ label, indexId, reason }: StorageListing["refused"][number]): IndexCheck {
  const part = { checked: false, reason: "the storage refuses the folder" };
  return {
    index_id: indexId,
    label,
    engine: null,
    count: null,
    revision: null,
    create_time: null,
    newest: false,
    parts: { files: { checked: true }, ids: part, list: part, vectors: part, graph: part, recall: part },
    measured: {},
    findings: [
      finding("error", "folder_refused", reason, {
        remedy: "look at the disk below; build the list's index anew, then remove this one",
      }),
    ],
  };
}

/** Left-overs of the storage, and labels whose list is gone. `listIds`: labels that were looked up. */
async function judgeStorage(
  { storage, signal }: CheckRun,
  listIds: readonly string[] | undefined,
  lists: ReadonlyMap<string, ListState>,
): Promise<Finding[]> {
  const { staging, trash, marks } = await storage.collect({ dryRun: true, signal });
  const found: Finding[] = [];
  const left = (severity: "warning" | "info", code: string, names: readonly string[], what: string) => {
    if (names.length > 0)
      found.push(
        finding(severity, code, `${counted(names.length, what)} would be collected`, {
          numbers: { folders: names.length },
          examples: names.slice(0, checkLimits.maxNamed),
          remedy: "the manager's retention collects them",
        }),
      );
  };
  left("warning", "staging_left", staging, "work folder of a build that died");
  left("info", "trash_left", trash, "removed index");
  left("info", "marks_left", marks, "old removal mark");
  const orphans = listIds?.filter((listId) => !lists.has(listId)) ?? [];
  if (orphans.length > 0)
    found.push(
      finding("info", "labels_without_list", `${counted(orphans.length, "label")} without a list`, {
        numbers: { labels: orphans.length },
        examples: orphans.slice(0, checkLimits.maxNamed),
        remedy: "the manager's retention removes their indexes after a grace",
      }),
    );
  return found;
}
