import { buildPhases, type Task, type taskProgressEventSchema } from "@lim/contracts";
import type { z } from "zod";

export type TaskProgressEvent = z.infer<typeof taskProgressEventSchema>;

export const eventOf = ({ task_id, status, attempt, progress }: Task): TaskProgressEvent => ({
  task_id,
  status,
  attempt,
  progress,
});

/** Of one attempt: a build ends pending (another attempt follows) or over. Attempt 0 is pending only. */
const statusOrder = ["indexing", "pending", "success", "error"] as const satisfies readonly Task["status"][];

/**
 * Whether `next` may follow `last` on a stream: it says something new and steps back neither in the attempt nor,
 * within one, in status, phase and done. Adopted builds and late reads can do so. Pure.
 */
export function goesOn(last: TaskProgressEvent | undefined, next: TaskProgressEvent): boolean {
  if (last === undefined) return true;
  if (next.attempt !== last.attempt) return next.attempt > last.attempt;
  const [lastStatus, nextStatus] = [statusOrder.indexOf(last.status), statusOrder.indexOf(next.status)];
  if (nextStatus !== lastStatus) return nextStatus > lastStatus;
  const [a, b] = [last.progress, next.progress];
  if (!a || !b) return a === null && b !== null;
  const [lastPhase, nextPhase] = [buildPhases.indexOf(a.phase), buildPhases.indexOf(b.phase)];
  if (nextPhase !== lastPhase) return nextPhase > lastPhase;
  if (b.done !== a.done) return b.done > a.done;
  return a.total !== b.total || a.rate_per_s !== b.rate_per_s || a.eta_s !== b.eta_s;
}
