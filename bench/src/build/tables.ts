import type { Spread } from "../engine/figures.ts";
import { median } from "../engine/figures.ts";
import type { Phases, SizeFigures } from "./end-to-end.ts";
import type { MemoryFigures, Stage } from "./memory.ts";
import type { Table } from "./run.ts";

const phaseTexts: Record<keyof Phases, string> = {
  total: "whole build",
  start: "start: until the snapshot is open",
  snapshot: "snapshot (beside build)",
  build: "build",
  verify: "verify: save, hash, open anew, probe",
  store: "store: flush to disk",
  rest: "rest: processes' ends and starts, publish",
  afterBuild: "(after the build process' end)",
};

export function ratioText(spread: Spread | undefined): string {
  if (!spread) return "–";
  const range = spread.rounds > 1 ? ` (${spread.min.toFixed(3)}–${spread.max.toFixed(3)})` : "";
  return `${spread.median.toFixed(3)}${range}`;
}

const thousands = (value: number) => Math.round(value).toLocaleString("en-US");
const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(0);

export function speedTable(where: string, figures: SizeFigures): Table {
  const { faces } = figures;
  const perS = (seconds: readonly number[]) => thousands(faces / median(seconds));
  const threads = median(figures.bareCpuSeconds) / median(figures.bareSeconds);
  return {
    title: `Build of ${where}`,
    head: ["", "figure"],
    rows: [
      ["bare engine, descriptors/s", perS(figures.bareSeconds)],
      ["  processors that it kept busy", threads.toFixed(2)],
      ["Postgres to published, descriptors/s", perS(figures.buildSeconds)],
      ["  processor time, s: bare engine", median(figures.bareCpuSeconds).toFixed(2)],
      ["  processor time, s: the indexer's processes", median(figures.buildCpuSeconds).toFixed(2)],
      ["ratio", ratioText(figures.ratio)],
      ["ratio without the fixed costs", ratioText(figures.ratioWithoutFixed)],
      ["ratio of the insertion alone", ratioText(figures.ratioOfInsertion)],
      ["snapshot beside the insertion, MB/s", thousands(figures.snapshotMbPerS)],
      ["sampled recall@10", median(figures.recall).toFixed(4)],
      ["size of the index, MiB", mebibytes(figures.sizeBytes)],
    ],
  };
}

export function phaseTable(where: string, { phasesMs, fixedPhasesMs }: SizeFigures): Table {
  const names = Object.keys(phaseTexts) as (keyof Phases)[];
  return {
    title: `Time of ${where}; fixed costs are those of a build of a tiny list`,
    head: ["", "ms", "share", "fixed, ms"],
    rows: names.map((name) => [
      phaseTexts[name],
      thousands(phasesMs[name]),
      `${((100 * phasesMs[name]) / phasesMs.total).toFixed(1)} %`,
      thousands(fixedPhasesMs[name]),
    ]),
  };
}

export function memoryTable(where: string, memory: MemoryFigures | undefined): Table[] {
  const title = `Memory of ${where}, MiB; ratios are to vectors + graph`;
  if (!memory) return [{ title, head: ["not measured: the system does not tell"], rows: [] }];
  const { footprint, stages } = memory;
  const stageRow = (name: Stage) => {
    const { peakBytes, idle, smallPeakBytes, aboveEmpty, aboveWaiting, aboveSmall } = stages[name];
    return [
      `${name} process`,
      mebibytes(peakBytes),
      mebibytes(idle.emptyBytes),
      aboveEmpty.toFixed(3),
      mebibytes(idle.waitingBytes),
      aboveWaiting.toFixed(3),
      mebibytes(smallPeakBytes),
      aboveSmall.toFixed(3),
    ];
  };
  const together = [
    "both at once",
    mebibytes(memory.togetherBytes),
    "",
    memory.togetherAboveEmpty.toFixed(3),
  ];
  const { vectorBytes, graphBytes, besidesBytes, formula } = footprint;
  const sum = `${vectorBytes} + ${graphBytes.toFixed(1)}`;
  return [
    {
      title,
      head: ["", "peak", "idle, empty engine", "ratio", "idle, waiting", "ratio", "tiny build", "ratio"],
      rows: [stageRow("build"), stageRow("publish"), together],
    },
    {
      title: `Vectors + graph of a face: ${formula}`,
      head: ["", "bytes a face", "MiB", "ratio of the peak"],
      rows: [
        ["vectors + graph", sum, mebibytes(memory.vectorsAndGraphBytes), memory.judged.toFixed(3)],
        [
          "with all that the engine holds",
          `${sum} + ${besidesBytes}`,
          mebibytes(memory.engineBytes),
          memory.judgedToEngine.toFixed(3),
        ],
      ],
    },
  ];
}
