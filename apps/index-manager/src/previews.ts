import type { PlanResponse, RetentionResponse } from "@lim/contracts";

/** What the master would do next, computed anew by whichever manager is asked. Reads everything, changes nothing. */
export interface Previews {
  /** Every list considered, by list id. */
  plan(
    signal: AbortSignal,
  ): Promise<Pick<PlanResponse, "due" | "last_plan_time" | "next_plan_time" | "decisions">>;
  retention(signal: AbortSignal): Promise<RetentionResponse>;
}
