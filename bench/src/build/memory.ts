import type { EngineName } from "@lim/contracts";
import { median } from "../engine/figures.ts";
import { type Footprint, footprintOf } from "./footprint.ts";
import type { IdleMemory } from "./idle.ts";
import type { BuildFigures } from "./indexer.ts";
import type { Options } from "./options.ts";

export type Stage = "build" | "publish";

/** What does not depend on the size of a list. */
export interface FixedFigures {
  idle: Record<Stage, IdleMemory>;
  /** Builds of a tiny list. */
  builds: BuildFigures[];
}

export interface StageMemory {
  peakBytes: number;
  idle: IdleMemory;
  /** Peak of the same process in a build of a tiny list. */
  smallPeakBytes: number;
  /** Peak above the idle process, to vectors + graph. */
  aboveEmpty: number;
  aboveWaiting: number;
  aboveSmall: number;
}

export interface MemoryFigures {
  footprint: Footprint;
  vectorsAndGraphBytes: number;
  /** With what else the engine holds of each face. */
  engineBytes: number;
  stages: Record<Stage, StageMemory>;
  /** The greatest sum of both, while the second waits for the first; above one idle process. */
  togetherBytes: number;
  togetherAboveEmpty: number;
  /** The larger of both processes, above one of its kind that has an empty engine. */
  judged: number;
  /** The same to all that the engine holds of a face. */
  judgedToEngine: number;
}

function peakOf(stage: Stage, builds: readonly BuildFigures[]): number {
  return median(
    builds.map(({ children }) => {
      const peaks = children.filter(({ name }) => name === `${stage}-child`);
      return peaks.length === 0 ? Number.NaN : Math.max(...peaks.map(({ peakBytes }) => peakBytes));
    }),
  );
}

/** Undefined where the system does not tell the memory of processes. */
export function memoryOfBuilds(
  { dim, m }: Pick<Options, "dim" | "m">,
  measured: { engine: EngineName; faces: number; builds: readonly BuildFigures[]; fixed: FixedFigures },
): MemoryFigures | undefined {
  const { engine, faces, builds, fixed } = measured;
  const footprint = footprintOf(engine, dim, m);
  const vectorsAndGraphBytes = faces * (footprint.vectorBytes + footprint.graphBytes);
  const engineBytes = vectorsAndGraphBytes + faces * footprint.besidesBytes;
  const stageOf = (stage: Stage): StageMemory => {
    const peakBytes = peakOf(stage, builds);
    const smallPeakBytes = peakOf(stage, fixed.builds);
    const idle = fixed.idle[stage];
    const above = (bytes: number) => (peakBytes - bytes) / vectorsAndGraphBytes;
    return {
      peakBytes,
      idle,
      smallPeakBytes,
      aboveEmpty: above(idle.emptyBytes),
      aboveWaiting: above(idle.waitingBytes),
      aboveSmall: above(smallPeakBytes),
    };
  };
  const stages = { build: stageOf("build"), publish: stageOf("publish") };
  const both = [stages.build, stages.publish];
  if (both.some(({ peakBytes }) => Number.isNaN(peakBytes))) return undefined;
  const togetherBytes = median(builds.map((build) => build.togetherBytes));
  const judged = Math.max(...both.map(({ aboveEmpty }) => aboveEmpty));
  return {
    footprint,
    vectorsAndGraphBytes,
    engineBytes,
    stages,
    togetherBytes,
    togetherAboveEmpty: (togetherBytes - stages.build.idle.emptyBytes) / vectorsAndGraphBytes,
    judged,
    judgedToEngine: (judged * vectorsAndGraphBytes) / engineBytes,
  };
}
