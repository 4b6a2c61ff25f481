import { join } from "node:path";
import { defaults, type ErrorName, isLimError, LimError } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, OpenedIndex, PublishedIndex } from "@lim/index-storage";
import { vectorIndexLimits } from "@lim/vector-index";
import { folderOf, judgeFolder } from "./files.ts";
import { type IndexIds, readIds } from "./ids.ts";
import { judgeGraph, judgeIds, judgeList, judgeRecall, judgeVectors } from "./judges.ts";
import { compareWithList } from "./list.ts";
import { type Finding, finding, type IndexCheck, type PartName } from "./report.ts";
import { sampleOf } from "./sample.ts";
import { measureRecall, passOver, unitRows } from "./vectors.ts";

/** What stands in the way of every check, and says nothing of an index. */
const elsewhere: readonly ErrorName[] = [
  "aborted",
  "storage_unavailable",
  "disk_full",
  "postgres_unavailable",
];

export const isElsewhere = (thrown: unknown): boolean => elsewhere.some((name) => isLimError(thrown, name));

export interface CheckContext {
  storage: IndexStorage;
  /** Undefined: lists are not compared. */
  db: Pick<FacesDb, "openSnapshot" | "readPacket"> | undefined;
  sample: number;
  seed: number;
  signal: AbortSignal;
  /** `share` of the index's work that is done, 0..1, and what is being done. */
  onProgress: (share: number, doing: string) => void;
}

const notOpened = "the index could not be opened";
const notVerified = "the files are not as they were published";

class OneIndex {
  readonly findings: Finding[] = [];
  readonly measured: Record<string, number> = {};
  readonly parts: IndexCheck["parts"] = {
    files: { checked: false },
    ids: { checked: false, reason: notVerified },
    list: { checked: false, reason: notVerified },
    vectors: { checked: false, reason: notVerified },
    graph: { checked: false, reason: notVerified },
    recall: { checked: false, reason: notVerified },
  };
  readonly context: CheckContext;
  readonly published: PublishedIndex;
  readonly newest: boolean;
  private readonly read = { list: 0, vectors: 0 };

  constructor(context: CheckContext, published: PublishedIndex, newest: boolean) {
    this.context = context;
    this.published = published;
    this.newest = newest;
  }

  async run(): Promise<void> {
    const { storage, signal, onProgress } = this.context;
    const { label, indexId, meta } = this.published;
    const folder = folderOf(storage.root, label, indexId);
    onProgress(0, "files");
    await storage.verify({ label, indexId, signal });
    this.done("files", await judgeFolder(folder, meta));
    onProgress(0.1, "ids");
    const ids = await readIds(join(folder, "ids.dat"), meta.files["ids.dat"].size, { signal });
    this.done("ids", judgeIds(meta, ids));
    const opened = await this.open();
    try {
      await this.compareList(ids, opened);
      if (opened) await this.judgeContent(opened, ids);
    } finally {
      await opened?.keyed.close();
    }
  }

  /** A part whose findings are these. */
  done(part: PartName, findings: readonly Finding[]): void {
    this.parts[part] = { checked: true };
    this.findings.push(...findings);
  }

  skip(parts: readonly PartName[], reason: string): void {
    for (const part of parts) this.parts[part] = { checked: false, reason };
  }

  private async open(): Promise<OpenedIndex | undefined> {
    const { storage, signal, onProgress } = this.context;
    onProgress(0.15, "opening");
    try {
      return await storage.open({ ...this.published, signal });
    } catch (thrown) {
      if (isElsewhere(thrown) || isLimError(thrown, "not_found")) throw thrown;
      const { detail } = LimError.from(thrown);
      this.skip(["vectors", "graph", "recall"], notOpened);
      this.findings.push(
        isLimError(thrown, "index_refused")
          ? finding("error", "open_refused", `opening refused it: ${detail}`, {
              remedy: "build the list's index anew: lim tasks create <list>",
            })
          : finding("warning", "not_opened", `its engine could not open it here: ${detail}`, {
              remedy: "check it where its engine is installed and memory suffices",
            }),
      );
      return undefined;
    }
  }

  private async compareList(ids: IndexIds, opened: OpenedIndex | undefined): Promise<void> {
    const { db, signal, sample, seed } = this.context;
    const { meta } = this.published;
    if (db === undefined) {
      this.skip(["list"], "--no-database");
      return;
    }
    const known = new Map<number, Float32Array>();
    if (opened) {
      const positions = sampleOf(ids.positions, sample, seed);
      const vectors = await opened.keyed.index.read(positions, { signal });
      positions.forEach((position, i) => {
        known.set(position, vectors.subarray(i * meta.dim, (i + 1) * meta.dim));
      });
    }
    const list = await compareWithList({
      db,
      meta,
      ids,
      known,
      tolerance: opened?.keyed.index.similarityTolerance ?? 0,
      signal,
      onRead: (faces) => this.progress("list", faces),
    });
    if (list)
      Object.assign(this.measured, {
        list_faces: list.faces,
        list_revision: list.revision,
        compared_vectors: list.compared.count,
      });
    this.done("list", judgeList(meta, list, this.newest));
  }

  private async judgeContent({ keyed, meta }: OpenedIndex, ids: IndexIds): Promise<void> {
    const { signal, sample, seed, onProgress } = this.context;
    const { index } = keyed;
    // Other faces than those that were compared: seeded apart.
    const sampled = await index.read(sampleOf(ids.positions, sample, seed + 1), { signal });
    const queries = unitRows(sampled, meta.dim);
    const { facts, best } = await passOver({
      index,
      positions: ids.positions,
      textOf: ids.textOf,
      queries,
      signal,
      onRead: (vectors) => this.progress("vectors", vectors),
    });
    this.measured.vectors = facts.read;
    this.measured.worst_norm_error = facts.worstNormError;
    this.done("vectors", judgeVectors(facts, vectorIndexLimits.normTolerance));
    onProgress(0.9, "graph");
    const graph = await index.inspect?.({ signal });
    if (graph) Object.assign(this.measured, { links: graph.links, unreachable: graph.unreachable });
    this.done("graph", judgeGraph(graph, meta.engine.name));
    if (graph === undefined) this.skip(["graph"], `engine ${meta.engine.name} does not tell`);
    onProgress(0.95, "recall");
    const recall = await measureRecall(index, queries, best, { ef: defaults.efSearch, signal });
    if (recall.queries > 0) {
      this.measured.recall = recall.recall;
      this.measured.recall_queries = recall.queries;
    }
    this.measured.recall_published = meta.recall.sampled;
    this.done("recall", judgeRecall(meta, recall));
    if (recall.queries === 0) this.skip(["recall"], "no sampled vector is of norm 1");
  }

  private progress(pass: "list" | "vectors", rows: number): void {
    const { count } = this.published.meta;
    this.read[pass] += rows;
    const share = (read: number) => Math.min(1, read / Math.max(1, count));
    const sum = 0.2 + 0.3 * share(this.read.list) + 0.4 * share(this.read.vectors);
    this.context.onProgress(sum, pass === "list" ? "list" : "vectors");
  }
}

/** Everything about one published index. Throws what says nothing of it: the storage or the database away, an abort. */
export async function checkIndex(
  context: CheckContext,
  published: PublishedIndex,
  newest: boolean,
): Promise<IndexCheck> {
  const one = new OneIndex(context, published, newest);
  const { meta, label, indexId } = published;
  try {
    await one.run();
  } catch (thrown) {
    if (isElsewhere(thrown) || context.signal.aborted) throw thrown;
    one.findings.push(endedBy(thrown));
  }
  return {
    index_id: indexId,
    label,
    engine: `${meta.engine.name} ${meta.engine.version}`,
    count: meta.count,
    revision: meta.revision,
    create_time: meta.create_time,
    newest,
    parts: one.parts,
    measured: one.measured,
    findings: one.findings,
  };
}

/** What ended the check of one index, and of no other. */
function endedBy(thrown: unknown): Finding {
  const { detail } = LimError.from(thrown);
  if (isLimError(thrown, "not_found"))
    return finding("info", "vanished", "it was removed while it was checked");
  if (isLimError(thrown, "index_refused"))
    return finding("error", "files_differ", detail, {
      remedy: "look at the disk below; build the list's index anew: lim tasks create <list>",
    });
  return finding("warning", "not_checked", `the check did not end: ${detail}`, {
    remedy: "run it again; if it stays so, report it",
  });
}
