import { LimError } from "@lim/contracts";
import type { PlacedVectors } from "./port.ts";

/** Throws `bad_input` where there is not one row of `dim` values a position. */
export function assertPlaced({ positions, vectors }: PlacedVectors, dim: number): void {
  if (vectors.length !== positions.length * dim)
    throw new LimError(
      "bad_input",
      `${vectors.length} values for ${positions.length} positions of ${dim} dimensions`,
    );
}

/** Positions that hold nothing now, but may still be in an answer that is under way, and those that may be used again. */
export class FreePositions {
  private readonly free: number[] = [];
  /** Oldest first. `before`: searches with a lower ticket may return them. */
  private retired: { positions: readonly number[]; before: number }[] = [];
  /** Tickets of searches that are under way, in the order in which they began. */
  private readonly underWay = new Set<number>();
  private nextTicket = 0;

  /** A search begins; its ticket is to be returned once its positions have been translated. */
  enter(): number {
    const ticket = this.nextTicket++;
    this.underWay.add(ticket);
    return ticket;
  }

  leave(ticket: number): void {
    this.underWay.delete(ticket);
  }

  /** Positions that are free once every search that is under way has left. */
  retire(positions: readonly number[]): void {
    if (positions.length > 0) this.retired.push({ positions, before: this.nextTicket });
  }

  /** At most `most` free positions, which are then the caller's. */
  take(most: number): number[] {
    const [oldest = Number.POSITIVE_INFINITY] = this.underWay;
    let ready = 0;
    for (const { positions, before } of this.retired) {
      if (oldest < before) break;
      for (const position of positions) this.free.push(position);
      ready++;
    }
    if (ready > 0) this.retired = this.retired.slice(ready);
    return this.free.splice(Math.max(0, this.free.length - most));
  }
}
