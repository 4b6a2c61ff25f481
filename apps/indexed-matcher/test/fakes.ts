import { defaults, type IndexMeta, type Match } from "@lim/contracts";
import type { AppliedCounts, KeyedChange, KeyedIndex, VectorIndex } from "@lim/vector-index";

export const listId = "00000000-0000-4000-8000-0000000000aa";
export const historyId = "00000000-0000-4000-8000-0000000000bb";

export function indexIdOf(number: number): string {
  return `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
}

export function metaOf(overrides: Partial<IndexMeta> = {}): IndexMeta {
  const file = { size: 1, sha256: "0".repeat(64) };
  return {
    format_version: 1,
    index_id: indexIdOf(1),
    index_type: "list",
    label: listId,
    history_id: historyId,
    descriptor_version: 1,
    dim: 8,
    metric: "ip",
    engine: { name: defaults.engine, version: "1" },
    params: { m: 16, ef_construction: 200 },
    count: 1,
    slots: 1,
    revision: 10,
    removed_since_rebuild: 0,
    create_time: "2026-01-01T00:00:00.000Z",
    build: { mode: "rebuild", skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 }, phases: {} },
    recall: { k: 10, sampled: 1 },
    files: { "index.dat": file, "ids.dat": file },
    ...overrides,
  };
}

/** A keyed index without an engine: counts closings, applies nothing, answers with itself. */
export class FakeKeyed implements KeyedIndex {
  closings = 0;
  applied: KeyedChange[] = [];
  failure: Error | undefined;
  alive = true;
  answers: Match[] = [];
  searches = 0;
  onSearch: (queries: Float32Array) => void = () => {};
  readonly count = 1;

  readonly index = {
    slots: 1,
    memoryBytes: 1,
    read: async () => {
      if (!this.alive) throw this.failure;
      return new Float32Array(8);
    },
  } as unknown as VectorIndex;

  has(): boolean {
    return false;
  }
  async addNew(): Promise<void> {}
  async apply(change: KeyedChange): Promise<AppliedCounts> {
    if (this.failure) throw this.failure;
    this.applied.push(change);
    return { added: change.upserts.length, replaced: 0, removed: change.removals.length, unchanged: 0 };
  }
  async applyInSteps(
    changes: readonly KeyedChange[],
    options: { signal?: AbortSignal; onApplied: (change: number, counts: AppliedCounts) => void },
  ): Promise<void> {
    for (const [number, change] of changes.entries()) {
      options.signal?.throwIfAborted();
      options.onApplied(number, await this.apply(change));
    }
  }
  async search(queries: Float32Array): Promise<Match[][]> {
    this.searches++;
    this.onSearch(queries);
    if (this.closings > 0) throw new Error("searched after its end");
    if (this.failure && queries.length / 8 > 0 && queries.some((value) => value < 0)) throw this.failure;
    return Array.from({ length: queries.length / 8 }, () => this.answers);
  }
  exportIds(): Uint8Array {
    return new Uint8Array(16);
  }
  async close(): Promise<void> {
    this.closings++;
  }
}
