import type { IndexMeta } from "@lim/contracts";
import type { GraphInspection } from "@lim/vector-index";
import { counted } from "../commands/manager-command.ts";
import { checkLimits } from "./limits.ts";
import { type Finding, finding } from "./report.ts";

/** A number of things and the first few of them. */
export interface Named {
  count: number;
  examples: readonly string[];
}

export interface IdFacts {
  slots: number;
  live: number;
  duplicates: Named;
}

const rebuild = "build the list's index anew: lim tasks create <list>";
const faces = (n: number) => counted(n, "face");

export function judgeIds(meta: Pick<IndexMeta, "count" | "slots">, ids: IdFacts): Finding[] {
  const found: Finding[] = [];
  if (ids.slots !== meta.slots || ids.live !== meta.count)
    found.push(
      finding(
        "error",
        "ids_count",
        `ids.dat names ${faces(ids.live)} in ${ids.slots} positions, meta.json says ${meta.count} in ${meta.slots}`,
        {
          numbers: {
            faces: ids.live,
            slots: ids.slots,
            expected_faces: meta.count,
            expected_slots: meta.slots,
          },
          remedy: rebuild,
        },
      ),
    );
  if (ids.duplicates.count > 0)
    found.push(
      finding("error", "ids_duplicate", `${counted(ids.duplicates.count, "position")} repeat a face's id`, {
        numbers: { positions: ids.duplicates.count },
        examples: ids.duplicates.examples,
        remedy: rebuild,
      }),
    );
  return found;
}

/** How far the change feed tells what happened since the index's revision. */
export type FeedReach =
  | "same_revision"
  | "followed"
  | "too_many"
  | "compacted"
  | "other_history"
  | "ahead_of_list"
  | "list_deleted";

export interface ListFacts {
  revision: number;
  /** Usable descriptors of the version in the list now. */
  faces: number;
  indexFaces: number;
  feed: FeedReach;
  /** Faces whose state changed after the index's revision: not judged. */
  changed: number;
  missing: Named;
  phantom: Named;
  compared: { count: number; different: Named; leastSimilarity: number };
}

/** `list` is undefined where the list is gone. */
export function judgeList(
  meta: Pick<IndexMeta, "revision" | "label">,
  list: ListFacts | undefined,
  newest: boolean,
): Finding[] {
  if (list === undefined)
    return [
      finding("warning", "list_gone", `list ${meta.label} is gone`, {
        remedy: "none: retention removes the index after its grace",
      }),
    ];
  const found = judgeLine(meta, list, newest);
  const judged = list.feed === "same_revision" || list.feed === "followed";
  if (!judged) return [...found, notJudged(list)];
  if (list.changed > 0)
    found.push(
      finding("info", "faces_not_judged", `${faces(list.changed)} changed after the index's revision`, {
        numbers: { faces: list.changed },
      }),
    );
  const differing = (code: string, named: Named, what: string, of: number) => {
    if (named.count > 0)
      found.push(
        finding("error", code, `${faces(named.count)} of ${of} ${what}`, {
          numbers: { faces: named.count, of },
          examples: named.examples,
          remedy: rebuild,
        }),
      );
  };
  differing("faces_missing", list.missing, "in the list are not in the index", list.faces);
  differing("faces_phantom", list.phantom, "in the index are not in the list", list.indexFaces);
  const { different, count, leastSimilarity } = list.compared;
  if (different.count > 0)
    found.push(
      finding(
        "error",
        "vectors_differ",
        `${different.count} of ${count} compared vectors are not their faces' descriptors`,
        {
          numbers: { faces: different.count, of: count, least_similarity: leastSimilarity },
          examples: different.examples,
          remedy: rebuild,
        },
      ),
    );
  return found;
}

/** What the revisions and histories of the index and its list say. An older index that is off the line serves nobody. */
function judgeLine(meta: Pick<IndexMeta, "revision">, list: ListFacts, newest: boolean): Finding[] {
  const numbers = { revision: meta.revision, list_revision: list.revision };
  const severity = newest ? "error" : "warning";
  if (list.feed === "other_history")
    return [
      finding(severity, "other_history", "the index is of another history of its list", {
        numbers,
        remedy: rebuild,
      }),
    ];
  if (list.feed === "ahead_of_list")
    return [
      finding(
        severity,
        "index_ahead",
        `the index is at revision ${meta.revision}, its list at ${list.revision}: was the database restored?`,
        { numbers, remedy: `lim db new-history, then ${rebuild}` },
      ),
    ];
  if (!newest || list.revision === meta.revision) return [];
  const behind = list.revision - meta.revision;
  const text = `${counted(behind, "revision")} behind its list`;
  if (list.feed === "compacted")
    return [
      finding("warning", "feed_gap", `${text}, and the change feed no longer reaches back to it`, {
        numbers: { ...numbers, behind },
        remedy: rebuild,
      }),
    ];
  return [
    finding("info", "index_behind", `${text}; the change feed reaches back to it`, {
      numbers: { ...numbers, behind },
    }),
  ];
}

function notJudged(list: ListFacts): Finding {
  const why: Record<FeedReach, string> = {
    same_revision: "",
    followed: "",
    too_many: `more than ${checkLimits.maxChangedFaces} faces changed since the index's revision`,
    compacted: "the change feed does not reach back to the index's revision",
    other_history: "histories differ",
    ahead_of_list: "the list does not reach the index's revision",
    list_deleted: "the list was deleted meanwhile",
  };
  return finding(
    "info",
    "differences_not_judged",
    `which faces differ cannot be told: ${why[list.feed]}; the list has ${faces(list.faces)}, the index ` +
      `${list.indexFaces}, ${list.missing.count} are only in the list, ${list.phantom.count} only in the index`,
    {
      numbers: {
        list_faces: list.faces,
        index_faces: list.indexFaces,
        only_in_list: list.missing.count,
        only_in_index: list.phantom.count,
      },
    },
  );
}

export interface VectorFacts {
  read: number;
  notFinite: Named;
  notUnit: Named;
  /** Of finite vectors. */
  worstNormError: number;
}

export function judgeVectors(facts: VectorFacts, tolerance: number): Finding[] {
  const found: Finding[] = [];
  const { read, notFinite, notUnit, worstNormError } = facts;
  if (notFinite.count > 0)
    found.push(
      finding("error", "vectors_not_finite", `${notFinite.count} of ${read} vectors are not finite`, {
        numbers: { faces: notFinite.count, of: read },
        examples: notFinite.examples,
        remedy: rebuild,
      }),
    );
  if (notUnit.count > 0)
    found.push(
      finding(
        "error",
        "vectors_not_unit",
        `${notUnit.count} of ${read} vectors are not of norm 1 within ${tolerance}`,
        {
          numbers: { faces: notUnit.count, of: read, worst_error: worstNormError },
          examples: notUnit.examples,
          remedy: rebuild,
        },
      ),
    );
  return found;
}

/** `graph` is undefined where the engine does not tell. */
export function judgeGraph(graph: GraphInspection | undefined, engine: string): Finding[] {
  if (graph === undefined)
    return [finding("info", "graph_not_told", `engine ${engine} does not tell what its graph reaches`)];
  const found: Finding[] = [];
  const { reachable, unreachable, badLinks, problems, links } = graph;
  if (badLinks > 0 || problems.length > 0)
    found.push(
      finding("error", "graph_broken", `${badLinks} of ${links} links are bad`, {
        numbers: { bad_links: badLinks, links },
        examples: problems.slice(0, checkLimits.maxNamed),
        remedy: rebuild,
      }),
    );
  const share = unreachable / Math.max(1, reachable + unreachable);
  const { fewUnreachable, unreachableShareToWarn, unreachableShareToFail } = checkLimits;
  if (unreachable > fewUnreachable && share > unreachableShareToWarn)
    found.push(
      finding(
        share > unreachableShareToFail ? "error" : "warning",
        "graph_unreachable",
        `no links lead to ${unreachable} of ${reachable + unreachable} vectors`,
        {
          numbers: { unreachable, reachable, share },
          remedy: `${rebuild}; near copies in the list cause it, a larger M helps`,
        },
      ),
    );
  return found;
}

export interface RecallFacts {
  queries: number;
  recall: number;
}

export function judgeRecall(meta: Pick<IndexMeta, "recall">, { queries, recall }: RecallFacts): Finding[] {
  const published = meta.recall.sampled;
  if (queries === 0 || published - recall <= checkLimits.maxRecallDrop) return [];
  return [
    finding(
      "warning",
      "recall_dropped",
      `recall@${checkLimits.recallK} is ${recall.toFixed(4)}, it was ${published.toFixed(4)} at the publication`,
      { numbers: { recall, published, queries, bound: checkLimits.maxRecallDrop }, remedy: rebuild },
    ),
  ];
}
