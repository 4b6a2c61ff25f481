import { type Latencies, latenciesOf } from "../load/latencies.ts";
import type { Commit } from "./writer-protocol.ts";

/**
 * When answers first came from which revision. An answer computed on a revision at or past a change has that change in
 * it, so this tells when each change could be found, without asking for it.
 */
export class SeenRevisions {
  /** Ascending in both. */
  readonly #steps: { revision: number; atMs: number }[] = [];

  see(revision: number, atMs: number): void {
    if (revision > this.latest) this.#steps.push({ revision, atMs });
  }

  get latest(): number {
    return this.#steps.at(-1)?.revision ?? 0;
  }

  /** When an answer first came from `revision` or later; undefined where none has. */
  firstAt(revision: number): number | undefined {
    let low = 0;
    let high = this.#steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#steps[middle]?.revision ?? 0) >= revision) high = middle;
      else low = middle + 1;
    }
    return this.#steps[low]?.atMs;
  }

  /** From commit to the first answer that has it; `missing`: those that no answer had. */
  findable(commits: readonly Commit[]): { latency: Latencies; missing: number } {
    const timesMs: number[] = [];
    let missing = 0;
    for (const { revision, atMs } of commits) {
      const foundMs = this.firstAt(revision);
      if (foundMs === undefined) missing++;
      // The matcher may read a commit before its writer has heard of it.
      else timesMs.push(Math.max(0, foundMs - atMs));
    }
    return { latency: latenciesOf(timesMs), missing };
  }
}
