import type { Match } from "@lim/contracts";

/** A change of one face in one list. It is done at or before `doneBy`; unknown while its transaction is under way. */
interface Fact {
  kind: "linked" | "gone";
  /** Vector that it was linked with; undefined for "gone". */
  vector: Float32Array | undefined;
  doneBy: number;
}

/** A change under way: from its beginning on, answers may show it. */
export interface OpenChange {
  /** It was committed, and the list's revision is this now. */
  committed(revision: number): void;
  /** It never happened. */
  undone(): void;
}

/** What one answer says, and what it was asked. */
export interface JudgedAnswer {
  revision: number;
  indexId: string | null;
  matches: readonly Match[];
  /** The face whose own vector was asked for, with the vector. */
  probe: { faceId: string; vector: Float32Array } | undefined;
  /** Lowest revision that any matcher of the label served when the request was sent, or that the request asked for. */
  floor: number;
}

const notYet = Number.POSITIVE_INFINITY;
/** A face asked for by its own vector: other vectors of a run are far below. */
const ownSimilarity = 0.99;

/**
 * Which faces a list held at which revision, by the word of its only writer. Answers are judged by what is certain:
 * an answer computed on revision R holds every change up to R, and may hold later ones.
 */
export class ListTruth {
  readonly listId: string;
  /** Newest revision that is known to be committed. */
  revision = 0;
  readonly #facts = new Map<string, Fact[]>();
  readonly #linked = new Map<string, Float32Array>();
  /** Positions for picking by chance, in constant time. */
  #order: string[] = [];
  readonly #place = new Map<string, number>();

  constructor(listId: string) {
    this.listId = listId;
  }

  get faceCount(): number {
    return this.#linked.size;
  }

  vectorOf(faceId: string): Float32Array | undefined {
    return this.#linked.get(faceId);
  }

  /** Faces that are linked for certain, at a position by chance. */
  linkedAt(position: number): string | undefined {
    return this.#order[position];
  }

  begin(
    changes: readonly { faceId: string; kind: "linked" | "gone"; vector?: Float32Array | undefined }[],
  ): OpenChange {
    const own = changes.map(({ faceId, kind, vector }) => {
      const fact: Fact = { kind, vector, doneBy: notYet };
      const facts = this.#facts.get(faceId) ?? [];
      facts.push(fact);
      this.#facts.set(faceId, facts);
      this.#forgetLinked(faceId);
      return { faceId, fact };
    });
    return {
      committed: (revision) => {
        for (const { faceId, fact } of own) {
          fact.doneBy = revision;
          this.#settle(faceId);
        }
        this.revision = Math.max(this.revision, revision);
      },
      undone: () => {
        for (const { faceId, fact } of own) {
          const facts = this.#facts.get(faceId) ?? [];
          facts.splice(facts.indexOf(fact), 1);
          this.#settle(faceId);
        }
      },
    };
  }

  /** What is wrong with an answer that has just come; nothing where it may be right. */
  judge(answer: JudgedAnswer): string[] {
    const { revision, matches, probe, floor } = answer;
    const faults: string[] = [];
    if (revision < floor) faults.push(`I12: revision ${revision}, though nobody served less than ${floor}`);
    const seen = new Set<string>();
    let before = Number.POSITIVE_INFINITY;
    for (const [faceId, similarity] of matches) {
      if (seen.has(faceId)) faults.push(`face ${faceId} is in the answer twice`);
      seen.add(faceId);
      if (similarity > before) faults.push(`face ${faceId} stands behind a less similar one`);
      before = similarity;
      if (!this.#mayHold(faceId, revision))
        faults.push(`I5: face ${faceId} is in the answer, ${this.#history(faceId)}`);
    }
    if (probe && this.#mustHold(probe.faceId, probe.vector, revision)) {
      const own = matches.find(([faceId]) => faceId === probe.faceId);
      if (!own) faults.push(`I5: face ${probe.faceId} is not found, ${this.#history(probe.faceId)}`);
      else if (own[1] < ownSimilarity)
        faults.push(
          `I5: face ${probe.faceId} is found by an old descriptor (${own[1]}), ${this.#history(probe.faceId)}`,
        );
    }
    return faults.map((fault) => `${fault} (revision ${revision} of list ${this.listId})`);
  }

  /** Certain at `revision`, and what came or may come after it. */
  #around(faceId: string, revision: number): { certain: Fact | undefined; later: readonly Fact[] } {
    const facts = this.#facts.get(faceId) ?? [];
    const after = facts.findIndex((fact) => fact.doneBy > revision);
    const split = after === -1 ? facts.length : after;
    return { certain: facts[split - 1], later: facts.slice(split) };
  }

  #mayHold(faceId: string, revision: number): boolean {
    const { certain, later } = this.#around(faceId, revision);
    return certain?.kind === "linked" || later.some((fact) => fact.kind === "linked");
  }

  #mustHold(faceId: string, vector: Float32Array, revision: number): boolean {
    const { certain, later } = this.#around(faceId, revision);
    return later.length === 0 && certain?.kind === "linked" && certain.vector === vector;
  }

  #history(faceId: string): string {
    const facts = this.#facts.get(faceId);
    if (!facts) return "and never was in the list";
    return facts
      .slice(-5)
      .map(({ kind, doneBy }) => `${kind} by ${doneBy === notYet ? "now, perhaps" : `revision ${doneBy}`}`)
      .join(", ");
  }

  #settle(faceId: string): void {
    const last = this.#facts.get(faceId)?.at(-1);
    if (last?.kind !== "linked" || last.doneBy === notYet || !last.vector) return;
    if (!this.#linked.has(faceId)) {
      this.#place.set(faceId, this.#order.length);
      this.#order.push(faceId);
    }
    this.#linked.set(faceId, last.vector);
  }

  #forgetLinked(faceId: string): void {
    if (!this.#linked.delete(faceId)) return;
    const place = this.#place.get(faceId) ?? 0;
    this.#place.delete(faceId);
    const last = this.#order.pop();
    if (last === undefined || last === faceId) return;
    this.#order[place] = last;
    this.#place.set(last, place);
  }
}
