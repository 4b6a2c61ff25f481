import type { EngineName } from "@lim/contracts";
import type { BuildStage } from "./build-end.ts";
import type { Child } from "./child-process.ts";

/** From the end of a build until spares are started: others may have work that the build gave them. */
const idleMs = 250;
/** From the death of a spare until another one is started. */
const restartMs = 1_000;
/** Spares that die one after the other without any use: then there are none until the next build has ended. */
const maxDeaths = 5;

const stages: readonly BuildStage[] = ["build", "publish"];

/** Processes that were started before they are needed. Each of them serves one build at most. */
export interface Spares {
  /** A spare, or one that is started now. A build that begins gets no other spares of its own meanwhile. */
  take(stage: BuildStage): Child;
  /** No build runs: soon there is one spare for each stage, with the engine loaded. */
  fill(engine: EngineName): void;
  /** Process ids of those that wait. */
  pids(): number[];
  /** Kills those that wait and starts no more. */
  close(): void;
}

export function createSpares(options: {
  /** False: processes are started when they are taken. */
  enabled: boolean;
  start: (stage: BuildStage, engine?: EngineName) => Child;
  idleMs?: number;
  restartMs?: number;
}): Spares {
  const waiting = new Map<BuildStage, Child>();
  let engine: EngineName | undefined;
  let deaths = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = !options.enabled;

  const startSoon = (ms: number) => {
    clearTimeout(timer);
    if (closed || engine === undefined || deaths >= maxDeaths) return;
    timer = setTimeout(() => {
      for (const stage of stages) if (!waiting.has(stage)) startOne(stage);
    }, ms);
    timer.unref();
  };
  const startOne = (stage: BuildStage) => {
    const child = options.start(stage, engine);
    waiting.set(stage, child);
    void child.gone.then(() => {
      if (waiting.get(stage) !== child) return;
      waiting.delete(stage);
      deaths++;
      startSoon(options.restartMs ?? restartMs);
    });
  };
  return {
    take(stage) {
      if (stage === "build") {
        clearTimeout(timer);
        engine = undefined;
      }
      const spare = waiting.get(stage);
      waiting.delete(stage);
      if (!spare || spare.seen.exit || spare.seen.spawnError) return options.start(stage);
      return spare;
    },
    fill(next) {
      engine = next;
      deaths = 0;
      startSoon(options.idleMs ?? idleMs);
    },
    pids: () => [...waiting.values()].flatMap(({ pid }) => pid ?? []),
    close() {
      closed = true;
      clearTimeout(timer);
      for (const child of waiting.values()) child.kill();
      waiting.clear();
    },
  };
}
