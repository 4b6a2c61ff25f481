import type { PathName } from "./path-choice.ts";
import type { MatchAnswer, PluginStats } from "./types.ts";

/** Counts what becomes of calls; reading and counting cost a few additions. */
export class Tally {
  readonly #stats: PluginStats = {
    indexAnswers: 0,
    exactAnswers: 0,
    exactFallbacks: 0,
    resends: 0,
    failedCalls: 0,
  };

  /** `first`: the path on which the call began. */
  answered(first: PathName | undefined, answers: readonly MatchAnswer[]): void {
    for (const { path, sends } of answers) {
      this.#stats.resends += Math.max(0, sends - 1);
      if (path === "index") this.#stats.indexAnswers++;
      else {
        this.#stats.exactAnswers++;
        if (first === "index") this.#stats.exactFallbacks++;
      }
    }
  }

  failed(): void {
    this.#stats.failedCalls++;
  }

  stats(): PluginStats {
    return { ...this.#stats };
  }
}
