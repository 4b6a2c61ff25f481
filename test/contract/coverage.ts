import type { ApiDocument } from "./document.ts";
import { noOperation } from "./http-faults.ts";

/** Of fewer valid requests all may meet a conflict that the document allows for. */
const enoughToBeCarriedOut = 8;

export interface Coverage {
  /** `status` 0 where there was no answer. */
  count(operation: string, outcome: "accepted" | "refused" | "either", status: number): void;
  /** Operations that were not called often enough, in words. */
  gaps(minimum: { accepted: number; refused: number }): string[];
  /** Operation × outcome × status, one line each. */
  table(): string;
}

interface Row {
  accepted: number;
  refused: number;
  either: number;
  /** Answers below 300 to requests made to be accepted. */
  done: number;
  statuses: Map<number, number>;
}

export function createCoverage(document: ApiDocument, refusable: (operation: string) => boolean): Coverage {
  const rows = new Map<string, Row>();
  for (const id of [...document.operations.map((one) => one.id), noOperation])
    rows.set(id, { accepted: 0, refused: 0, either: 0, done: 0, statuses: new Map() });
  return {
    count(operation, outcome, status) {
      const row = rows.get(operation);
      if (!row) throw new Error(`${operation} is not in the document`);
      row[outcome]++;
      if (outcome === "accepted" && status >= 200 && status < 300) row.done++;
      row.statuses.set(status, (row.statuses.get(status) ?? 0) + 1);
    },
    gaps(minimum) {
      const gaps: string[] = [];
      for (const [id, row] of rows) {
        if (id !== noOperation && row.accepted < minimum.accepted)
          gaps.push(`${id}: ${row.accepted} valid requests instead of ${minimum.accepted}`);
        if (id !== noOperation && row.done === 0 && row.accepted >= enoughToBeCarriedOut)
          gaps.push(`${id}: no valid request was carried out`);
        if (refusable(id) && row.refused < minimum.refused)
          gaps.push(`${id}: ${row.refused} faulty requests instead of ${minimum.refused}`);
      }
      return gaps;
    },
    table() {
      const width = Math.max(...[...rows.keys()].map((id) => id.length));
      const line = (name: string, valid: string, faulty: string, odd: string, statuses: string) =>
        `${name.padEnd(width)} ${valid.padStart(7)} ${faulty.padStart(7)} ${odd.padStart(7)}  ${statuses}`;
      const body = [...rows].map(([id, row]) => {
        const statuses = [...row.statuses]
          .toSorted(([a], [b]) => a - b)
          .map(([status, n]) => `${status || "none"}×${n}`);
        return line(id, `${row.accepted}`, `${row.refused}`, `${row.either}`, statuses.join(" "));
      });
      return [line("operation", "valid", "faulty", "odd", "answers"), ...body].join("\n");
    },
  };
}
