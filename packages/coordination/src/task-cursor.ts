import { LimError } from "@lim/contracts";

/** What a cursor goes on with: the score of the last task given out, in the set of all tasks or in the queue. */
export type CursorKind = "task" | "queue";

const letters = { task: "t", queue: "q" } as const satisfies Record<CursorKind, string>;

/** `score` in decimal digits. */
export function cursorOf(kind: CursorKind, score: string): string {
  return Buffer.from(`${letters[kind]}${score}`, "ascii").toString("base64url");
}

/** The score in decimal digits. Throws bad_input for text that `cursorOf` did not make, or made for the other kind. */
export function scoreOfCursor(kind: CursorKind, cursor: string): string {
  const text = Buffer.from(cursor, "base64url").toString("latin1");
  const score = /^([tq])(-?\d{1,16})$/.exec(text);
  // Encoded again, since decoding passes over whatever is no base64url.
  if (score?.[1] !== letters[kind] || score[2] === undefined || cursorOf(kind, score[2]) !== cursor)
    throw new LimError("bad_input", "cursor: not one that an answer of this listing gave as next_cursor");
  return score[2];
}
