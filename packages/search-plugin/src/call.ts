import type { Deadline } from "./deadline.ts";
import type { CheckedQuery } from "./query.ts";

/** One call of `match`. */
export interface Call {
  query: CheckedQuery;
  deadline: Deadline;
  startedAtMs: number;
  lunaRequestId: string | undefined;
}
