import { buildPhases, type Progress } from "@lim/contracts";
import { type BuildEnd, type BuildStage, nameEnd, type Seen } from "./build-end.ts";
import { type Child, startChild } from "./child-process.ts";
import type { BuildOrder } from "./ipc.ts";
import { cgroupOomKills, residentBytes } from "./memory.ts";

export { type BuildEnd, type BuildStage, nameEnd, type Seen } from "./build-end.ts";

const memoryWatchMs = 250;
/** From SIGTERM to SIGKILL of a build that was cancelled. */
export const cancelGraceMs = 5_000;

export interface RunningBuild {
  /** Of the build process; the publish process is told to `onPublish`. */
  readonly pid: number | undefined;
  progress(): Progress | null;
  /** SIGTERM, then SIGKILL. Safe to repeat. */
  cancel(): void;
  /** Settles once its processes are gone. Never rejects. */
  readonly ended: Promise<BuildEnd>;
}

export interface BuildParts {
  /** Where its processes come from; default: started when they are needed. */
  takeChild?: (stage: BuildStage) => Child;
  /** For tests: modules to run instead. */
  module?: string;
  publishModule?: string;
  /** For tests: milliseconds that a process may live on after its last word. */
  exitGraceMs?: number;
  /** Told once the publish process has its order. */
  onPublish?: (pid: number | undefined) => void;
}

/**
 * Runs one build in two processes, one after the other: the first one saves the index and ends, the second one opens it
 * anew, verifies and publishes, so that no index is in memory twice. Watches their memory, and names the way they ended.
 */
export function startBuildProcess(order: BuildOrder, parts: BuildParts = {}): RunningBuild {
  const seen: Seen = { stage: "build", progress: null, peakBytes: 0, stderr: "" };
  const running = new Set<Child>();
  const modules = { build: parts.module, publish: parts.publishModule };
  const takeChild =
    parts.takeChild ??
    ((stage: BuildStage) => startChild(stage, { module: modules[stage], exitGraceMs: parts.exitGraceMs }));
  const take = (stage: BuildStage): Child => {
    const child = takeChild(stage);
    child.onProgress((progress) => {
      if (isForward(seen.progress, progress)) seen.progress = progress;
      // Its start takes as long as the saving of a small index: it is there when that has ended.
      if (stage === "build" && progress.phase === "verify" && !seen.cancelled) publisher();
    });
    running.add(child);
    void child.gone.then(() => running.delete(child));
    return child;
  };
  let taken: Child | undefined;
  const publisher = () => {
    taken ??= take("publish");
    return taken;
  };
  const oomKillsBefore = cgroupOomKills();
  const builder = take("build");
  const watch = watchMemory(running, seen, order.memoryLimitBytes);
  const cancel = () => {
    if (seen.cancelled) return;
    seen.cancelled = true;
    for (const child of running) child.end(cancelGraceMs);
  };
  /** The process whose end is the build's end. */
  const run = async (): Promise<Child> => {
    builder.send(order);
    await builder.gone;
    const { last } = builder.seen;
    if (last?.type !== "saved" || seen.cancelled || seen.killedForMemory) {
      taken?.kill();
      await taken?.gone;
      return builder;
    }
    const child = publisher();
    seen.stage = "publish";
    const { storageRoot, logLevel } = order;
    child.send({ type: "publish", saved: last.saved, storageRoot, logLevel });
    parts.onPublish?.(child.pid);
    await child.gone;
    return child;
  };
  return {
    pid: builder.pid,
    progress: () => seen.progress,
    cancel,
    ended: run().then(async (last) => {
      clearInterval(watch);
      const before = await oomKillsBefore;
      const after = await cgroupOomKills();
      if (before !== undefined && after !== undefined && after > before) seen.killedByKernel = true;
      return nameEnd({ ...seen, ...last.seen }, order.memoryLimitBytes);
    }),
  };
}

/** Each process measures its own progress; towards the manager it never goes back. */
function isForward(before: Progress | null, now: Progress): boolean {
  if (!before) return true;
  const step = buildPhases.indexOf(now.phase) - buildPhases.indexOf(before.phase);
  return step > 0 || (step === 0 && now.done >= before.done);
}

/** Looks at the resident memory of all processes together, and kills them where it passes the limit. */
function watchMemory(running: ReadonlySet<Child>, seen: Seen, limitBytes: number): NodeJS.Timeout {
  let reading = false;
  return setInterval(async () => {
    if (reading) return;
    reading = true;
    const children = [...running];
    const found = { build: 0, publish: 0 };
    for (const { pid, stage, seen } of children)
      if (pid !== undefined && !seen.exit) found[stage] = (await residentBytes(pid)) ?? 0;
    reading = false;
    const bytes = found.build + found.publish;
    seen.peakBytes = Math.max(seen.peakBytes, found.build, found.publish);
    // One that has said its last word only ends, and one without an order only waits.
    const atWork = children.some((child) => child.stage === seen.stage && !child.seen.last);
    if (bytes <= limitBytes || seen.killedForMemory || !atWork) return;
    seen.killedForMemory = true;
    seen.residentBytes = found;
    for (const child of children) child.kill();
  }, memoryWatchMs);
}
