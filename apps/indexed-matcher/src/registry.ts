import { LabelSlot, type Lease } from "./label-slot.ts";

export const indexStates = ["loading", "serving", "full", "stale", "failed"] as const;
export type IndexState = (typeof indexStates)[number];

/** What GET /indexes says of a label. Null where no index is loaded. */
export interface LoadedLabel {
  label: string;
  state: IndexState;
  index_id: string | null;
  revision: number | null;
  behind_by: number | null;
  behind_seconds: number | null;
  count: number | null;
  size: number | null;
  memory: number | null;
  descriptor_version: number | null;
  detail: string | null;
}

/** The labels of this matcher. */
export class Registry {
  readonly #slots = new Map<string, LabelSlot>();

  slot(label: string): LabelSlot | undefined {
    return this.#slots.get(label);
  }

  slotOf(label: string): LabelSlot {
    let slot = this.#slots.get(label);
    if (!slot) {
      slot = new LabelSlot(label);
      this.#slots.set(label, slot);
    }
    return slot;
  }

  slots(): LabelSlot[] {
    return [...this.#slots.values()];
  }

  /** Labels with an index to answer from. */
  servedLabels(): string[] {
    return this.slots()
      .filter((slot) => slot.current)
      .map((slot) => slot.label);
  }

  acquire(label: string): Lease | undefined {
    return this.#slots.get(label)?.acquire();
  }

  /** Forgets a label; its index is closed when the last reader has left. */
  remove(label: string): void {
    const slot = this.#slots.get(label);
    this.#slots.delete(label);
    slot?.clear();
  }

  /** Resolves when every index is closed. */
  async close(): Promise<void> {
    const holders = this.slots().flatMap((slot) => slot.current ?? []);
    for (const slot of this.slots()) this.remove(slot.label);
    await Promise.all(holders.map((holder) => holder.closed));
  }

  describe(): LoadedLabel[] {
    return this.slots()
      .map(describeSlot)
      .toSorted((a, b) => (a.label < b.label ? -1 : 1));
  }
}

function describeSlot(slot: LabelSlot): LoadedLabel {
  const holder = slot.current;
  const state = stateOf(slot);
  return {
    label: slot.label,
    state,
    index_id: holder?.meta.index_id ?? null,
    revision: holder?.revision ?? null,
    behind_by: holder ? Math.max(0, slot.headRevision - holder.revision) : null,
    behind_seconds: holder ? Math.round(slot.behindMs / 100) / 10 : null,
    count: holder?.keyed.count ?? null,
    size: holder?.sizeBytes ?? null,
    memory: holder?.keyed.index.memoryBytes ?? null,
    descriptor_version: holder?.meta.descriptor_version ?? null,
    detail: detailOf(slot),
  };
}

function detailOf(slot: LabelSlot): string | null {
  if (slot.gap) return `the change feed cannot be followed: ${slot.gap}`;
  return slot.current?.heldBack ?? slot.lastError ?? null;
}

function stateOf(slot: LabelSlot): IndexState {
  if (slot.current?.failed) return "failed";
  if (slot.gap) return "stale";
  if (slot.current?.heldBack) return "full";
  if (slot.current) return "serving";
  return slot.loadingId ? "loading" : "failed";
}
