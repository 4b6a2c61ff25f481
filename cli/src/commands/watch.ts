import { setTimeout as sleep } from "node:timers/promises";
import { isLimError, LimError, type Task } from "@lim/contracts";
import type { ManagerApi } from "../api/manager-api.ts";
import { createProgressBoard, type ProgressBoard, type ProgressLine } from "../output.ts";

const pollPeriodMs = 300;
/** Polls in a row that nobody answered, each with its own few tries: some half a minute without a manager. */
const maxFailedPolls = 10;

type State = Pick<Task, "status" | "attempt" | "progress">;

/**
 * Follows one task to its end, a bar for each phase: by the manager's stream of events, and by asking again and again
 * where that breaks. Throws not_found where the task is removed meanwhile.
 */
export async function watchTask(api: ManagerApi, taskId: string, signal: AbortSignal): Promise<Task> {
  const board = createProgressBoard();
  const bars = new PhaseBars(board);
  try {
    let seen = false;
    for await (const event of api.progress(taskId, { signal })) {
      seen = true;
      if (event.kind === "removed") throw removedWhileWatched(taskId);
      if (event.kind === "end") {
        bars.finish();
        return event.task;
      }
      bars.show(event.state);
    }
    return await pollToEnd(api, taskId, { seen, bars, signal });
  } catch (error) {
    if (signal.aborted) throw new LimError("aborted", "stopped watching; the task goes on", { cause: error });
    throw error;
  } finally {
    board.stop();
  }
}

async function pollToEnd(
  api: ManagerApi,
  taskId: string,
  options: { seen: boolean; bars: PhaseBars; signal: AbortSignal },
): Promise<Task> {
  const { bars, signal } = options;
  let { seen } = options;
  for (let failed = 0; ; ) {
    signal.throwIfAborted();
    try {
      const task = await api.task(taskId, { signal });
      failed = 0;
      seen = true;
      bars.show(task);
      if (task.status === "success" || task.status === "error") {
        bars.finish();
        return task;
      }
    } catch (thrown) {
      if (seen && isLimError(thrown, "not_found")) throw removedWhileWatched(taskId);
      if (!isPassing(thrown) || ++failed >= maxFailedPolls) throw thrown;
    }
    await sleep(pollPeriodMs, undefined, { signal });
  }
}

/**
 * Calls `look` every `periodMs` until the signal fires, which throws; no more than a few looks in a row may go
 * unanswered.
 */
export async function lookAgainAndAgain(
  look: () => Promise<void>,
  { periodMs, signal }: { periodMs: number; signal: AbortSignal },
): Promise<never> {
  for (let failed = 0; ; ) {
    signal.throwIfAborted();
    try {
      await look();
      failed = 0;
    } catch (thrown) {
      if (!isPassing(thrown) || ++failed >= maxFailedPolls) throw thrown;
    }
    await sleep(periodMs, undefined, { signal });
  }
}

/** No answer, or an answer that something behind the manager is away for now. */
function isPassing(thrown: unknown): boolean {
  return thrown instanceof LimError && (thrown.httpStatus === 503 || thrown.httpStatus === 504);
}

function removedWhileWatched(taskId: string): LimError {
  return new LimError("not_found", `task ${taskId} was removed while it was watched`);
}

class PhaseBars {
  readonly #board: ProgressBoard;
  #current: { name: string; line: ProgressLine } | undefined;

  constructor(board: ProgressBoard) {
    this.#board = board;
  }

  show({ status, attempt, progress }: State): void {
    if (progress === null || status !== "indexing") return;
    const name = attempt > 1 ? `${progress.phase} (attempt ${attempt})` : progress.phase;
    if (this.#current?.name !== name) {
      this.finish();
      this.#current = { name, line: this.#board.add(name, progress.total, "") };
    }
    this.#current.line.setTotal(progress.total);
    this.#current.line.update(progress.done);
  }

  finish(): void {
    this.#current?.line.finish();
    this.#current = undefined;
  }
}
