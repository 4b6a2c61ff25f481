import { limits } from "@lim/contracts";

/** Faces of a packet by what became of them: `replaced` ones count as an addition and as a removal, as in the feed. */
export interface PacketFaces {
  added: number;
  replaced: number;
  removed: number;
}

/**
 * Progress of one refresh pass in packets of ten, for the `Sync:` lines: additions fetched -> needed, then the same
 * for removals. Needed is taken at the start: the feed's rows of each kind, in tens, rounded up. Fetched counts
 * the faces that came, of each kind, in tens, rounded up; so a packet with faces of both kinds moves both pairs.
 * One face that changed several times comes once, so faces may be fewer than rows: at the end of a pass
 * fetched equals needed, and before it fetched never exceeds needed and never goes back.
 */
export class SyncProgress {
  readonly neededAdditions: number;
  readonly neededRemovals: number;
  #additions = 0;
  #removals = 0;
  #drained = false;

  constructor(rows: { additions: number; removals: number }) {
    this.neededAdditions = packetsOf(rows.additions);
    this.neededRemovals = packetsOf(rows.removals);
  }

  /** `drained`: this packet was the last of the pass. */
  fetched(faces: PacketFaces, drained: boolean): void {
    this.#additions += faces.added + faces.replaced;
    this.#removals += faces.removed + faces.replaced;
    this.#drained ||= drained;
  }

  line(): string {
    const additions = this.#count(this.#additions, this.neededAdditions);
    const removals = this.#count(this.#removals, this.neededRemovals);
    return `Sync: ${additions}->${this.neededAdditions}, ${removals}->${this.neededRemovals}`;
  }

  #count(faces: number, needed: number): number {
    return this.#drained ? needed : Math.min(needed, packetsOf(faces));
  }
}

function packetsOf(faces: number): number {
  return Math.ceil(faces / limits.refreshPacketFaces);
}
