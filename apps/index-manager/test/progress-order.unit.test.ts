import { buildPhases, type Progress } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { goesOn, type TaskProgressEvent } from "../src/api/progress-order.ts";

const progressArb = fc.option(
  fc.record({
    phase: fc.constantFrom(...buildPhases),
    done: fc.integer({ min: 0, max: 3 }),
    total: fc.integer({ min: 3, max: 4 }),
    rate_per_s: fc.constantFrom(null, 5),
    eta_s: fc.constantFrom(null, 1),
  }) satisfies fc.Arbitrary<Progress>,
);
const eventArb: fc.Arbitrary<TaskProgressEvent> = fc.record({
  task_id: fc.constant("t"),
  status: fc.constantFrom("pending" as const, "indexing" as const),
  attempt: fc.integer({ min: 0, max: 3 }),
  progress: progressArb,
});

const sentOf = (reads: readonly TaskProgressEvent[]): TaskProgressEvent[] => {
  const sent: TaskProgressEvent[] = [];
  for (const read of reads) if (goesOn(sent.at(-1), read)) sent.push(read);
  return sent;
};
const event = (
  attempt: number,
  status: "pending" | "indexing",
  phase?: Progress["phase"],
  done = 0,
): TaskProgressEvent => ({
  task_id: "t",
  status,
  attempt,
  progress: phase === undefined ? null : { phase, done, total: 9, rate_per_s: null, eta_s: null },
});

describe("what a progress stream sends", () => {
  it("never steps back in (attempt, phase, done), whatever is read", () => {
    fc.assert(
      fc.property(fc.array(eventArb, { maxLength: 40 }), (reads) => {
        const sent = sentOf(reads);
        for (const [i, later] of sent.entries())
          for (const earlier of sent.slice(0, i)) {
            expect(later.attempt).toBeGreaterThanOrEqual(earlier.attempt);
            const [a, b] = [earlier.progress, later.progress];
            if (later.attempt !== earlier.attempt || later.status !== earlier.status || !a || !b) continue;
            const [phaseA, phaseB] = [buildPhases.indexOf(a.phase), buildPhases.indexOf(b.phase)];
            expect(phaseB).toBeGreaterThanOrEqual(phaseA);
            if (phaseA === phaseB) expect(b.done).toBeGreaterThanOrEqual(a.done);
          }
      }),
    );
  });

  it("says nothing twice in a row", () => {
    fc.assert(fc.property(eventArb, (read) => !goesOn(read, structuredClone(read))));
  });

  it("follows a task through a failed attempt to the next one", () => {
    const reads = [
      event(0, "pending"),
      event(1, "indexing"),
      event(1, "indexing", "build", 5),
      event(1, "pending"),
      event(2, "indexing"),
      event(2, "indexing", "snapshot", 1),
    ];
    expect(sentOf(reads)).toEqual(reads);
  });

  it("leaves out what is late or was forgotten meanwhile", () => {
    const sent = [event(1, "indexing", "build", 5), event(1, "indexing", "verify", 0)];
    const late = [
      event(0, "pending"),
      event(1, "indexing"),
      event(1, "indexing", "build", 9),
      event(1, "indexing", "snapshot", 3),
    ];
    expect(sentOf([...sent, ...late])).toEqual(sent);
  });
});
