import type { Match } from "@lim/contracts";

/** What a face of a list is from a change on; undefined: not in the list. */
interface Change {
  /** The change's own revision is at or before this one; infinite while it is being committed. */
  byRevision: number;
  vector: Float32Array | undefined;
}

const tolerance = 2e-3;

/**
 * What each face of a list may be at and after every revision. A writer tells of a change before it is committed, and of
 * a revision at or past it afterwards; so an answer can be judged however it and the changes overlap.
 */
export class FaceModel {
  readonly #changes = new Map<string, Change[]>();

  /** Returns what to call with a revision of the list that was read after the commit. */
  begin(
    changes: readonly { faceId: string; vector: Float32Array | undefined }[],
  ): (byRevision: number) => void {
    const begun = changes.map(({ faceId, vector }) => {
      const change = { byRevision: Number.POSITIVE_INFINITY, vector };
      this.#changes.set(faceId, [...(this.#changes.get(faceId) ?? []), change]);
      return change;
    });
    return (byRevision) => {
      for (const change of begun) change.byRevision = byRevision;
    };
  }

  /** What the face may be in content that has all changes up to `revision`, and perhaps later ones. */
  possible(faceId: string, revision: number): readonly (Float32Array | undefined)[] {
    const changes = this.#changes.get(faceId) ?? [];
    const last = changes.findLastIndex((change) => change.byRevision <= revision);
    return [
      ...(last < 0 ? [undefined] : []),
      ...changes.slice(Math.max(0, last)).map(({ vector }) => vector),
    ];
  }

  /** The vector that the face has by all that is known now. */
  latest(faceId: string): Float32Array | undefined {
    return this.#changes.get(faceId)?.at(-1)?.vector;
  }

  /** What is wrong with the answer to `probe` that was computed on `revision`; empty where nothing is. */
  faults(answer: readonly Match[], probe: Float32Array, revision: number): string[] {
    const faults: string[] = [];
    const seen = new Set<string>();
    for (const [faceId, similarity] of answer) {
      if (seen.has(faceId)) faults.push(`${faceId} is there twice`);
      seen.add(faceId);
      const possible = this.possible(faceId, revision);
      const isRight = possible.some(
        (vector) => vector && Math.abs(Math.max(0, dot(vector, probe)) - similarity) <= tolerance,
      );
      if (isRight) continue;
      const states = possible.map((vector) => (vector ? dot(vector, probe).toFixed(3) : "gone"));
      faults.push(
        `${faceId} with ${similarity.toFixed(3)} at revision ${revision}, may be: ${states.join(", ")}`,
      );
    }
    return faults;
  }

  /** True where the face was there with this very vector at `revision` and ever since. */
  isCertain(faceId: string, vector: Float32Array, revision: number): boolean {
    const possible = this.possible(faceId, revision);
    return possible.length === 1 && possible[0] === vector;
  }
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}
