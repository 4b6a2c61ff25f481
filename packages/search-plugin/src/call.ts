import type { Deadline } from "./deadline.ts";
import type { PathName } from "./path-choice.ts";
import type { CheckedQuery } from "./query.ts";

/** One call of `match`. */
export interface Call {
  query: CheckedQuery;
  deadline: Deadline;
  startedAtMs: number;
  lunaRequestId: string | undefined;
  /** Once it is chosen. */
  firstPath?: PathName;
}
