/** Marks kept of one label. Past it newer heads are not remembered, so that the oldest one is never forgotten. */
const maxMarks = 64;

/** When which revision of a list was first heard of: tells for how long an index has been behind. */
export class HeadMarks {
  /** Ascending in both. */
  readonly #marks: { revision: number; heardMs: number }[] = [];

  hear(revision: number, nowMs: number): void {
    const newest = this.#marks.at(-1);
    if (newest && revision <= newest.revision) return;
    if (this.#marks.length < maxMarks) this.#marks.push({ revision, heardMs: nowMs });
  }

  /** Since when something past `servedRevision` has been known; undefined where nothing is. */
  behindSince(servedRevision: number): number | undefined {
    while (this.#marks[0] && this.#marks[0].revision <= servedRevision) this.#marks.shift();
    return this.#marks[0]?.heardMs;
  }

  clear(): void {
    this.#marks.length = 0;
  }
}
