import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { buildPhases, type Progress } from "@lim/contracts";
import { type BuildEnd, type BuildStage, nameEnd, type Seen } from "./build-end.ts";
import { type BuildOrder, type BuildReport, buildReportSchema, type PublishOrder } from "./ipc.ts";
import { cgroupOomKills, residentBytes } from "./memory.ts";

export { type BuildEnd, type BuildStage, nameEnd, type Seen } from "./build-end.ts";

const memoryWatchMs = 250;
/** From SIGTERM to SIGKILL of a build that was cancelled. */
export const cancelGraceMs = 5_000;
/** From a process' last word to SIGKILL: its exit waits for threads in native code, and the service waits for it. */
const exitGraceMs = 10_000;
/** Once the process is gone, how long its pipes may stay open (another process may have inherited them). */
const pipesGraceMs = 2_000;
const stderrTailChars = 1_500;
/** MiB of new objects before the collector looks at them. With Node's 16 some 50 MB of read buffers lie about; no slower. */
const execArgv = ["--max-semi-space-size=1"];
/** glibc gives blocks from this size on back to the system when they are freed: else 30 MB of them stay. */
const allocatorEnv = { MALLOC_MMAP_THRESHOLD_: "65536" };

export interface RunningBuild {
  /** Of the build process; the publish process is told to `onPublish`. */
  readonly pid: number | undefined;
  progress(): Progress | null;
  /** SIGTERM, then SIGKILL. Safe to repeat. */
  cancel(): void;
  /** Settles once its processes are gone. Never rejects. */
  readonly ended: Promise<BuildEnd>;
}

const moduleOf = (name: string) =>
  fileURLToPath(new URL(import.meta.url.endsWith(".ts") ? `./${name}.ts` : `./${name}.js`, import.meta.url));

export interface BuildParts {
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
  const graceMs = parts.exitGraceMs ?? exitGraceMs;
  const seen: Seen = { stage: "build", progress: null, peakBytes: 0, stderr: "" };
  const running = new Set<Child>();
  const start = (stage: BuildStage, module: string): Child => {
    const child = startChild(stage, module, graceMs, (progress) => {
      if (isForward(seen.progress, progress)) seen.progress = progress;
      // Its start takes as long as the saving of a small index: it is there when that has ended.
      if (stage === "build" && progress.phase === "verify" && !seen.cancelled) publisher();
    });
    running.add(child);
    void child.gone.then(() => running.delete(child));
    return child;
  };
  let started: Child | undefined;
  const publisher = () => {
    started ??= start("publish", parts.publishModule ?? moduleOf("publish-child"));
    return started;
  };
  const oomKillsBefore = cgroupOomKills();
  const builder = start("build", parts.module ?? moduleOf("build-child"));
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
      started?.kill();
      await started?.gone;
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

interface Child {
  readonly stage: BuildStage;
  readonly pid: number | undefined;
  readonly seen: Pick<Seen, "last" | "exit" | "spawnError" | "stderr">;
  /** Resolves when the process is gone and all it sent was read. */
  readonly gone: Promise<void>;
  send(order: BuildOrder | PublishOrder): void;
  kill(): void;
  /** SIGTERM, then SIGKILL. */
  end(graceMs: number): void;
}

function startChild(
  stage: BuildStage,
  module: string,
  graceMs: number,
  onProgress: (progress: Progress) => void,
): Child {
  const child = fork(module, [], {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
    execArgv,
    env: { ...process.env, ...allocatorEnv },
  });
  const seen: Child["seen"] = { stderr: "" };
  const killAfter = (ms: number) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), ms);
    void gone.then(() => clearTimeout(timer));
  };
  child.on("message", (message) => {
    const parsed = buildReportSchema.safeParse(message);
    if (!parsed.success) return;
    const report: BuildReport = parsed.data;
    if (report.type === "progress") onProgress(report.progress);
    else if (!seen.last) {
      seen.last = report;
      killAfter(graceMs);
    }
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    process.stderr.write(text);
    seen.stderr = (seen.stderr + text).slice(-stderrTailChars);
  });
  const gone = awaitEnd(child, seen);
  return {
    stage,
    pid: child.pid,
    seen,
    gone,
    send(order) {
      child.send(order, (error) => {
        // A child that died at once closes the channel: its exit tells more than this error would.
        if (error) child.kill("SIGKILL");
      });
    },
    kill: () => void child.kill("SIGKILL"),
    end(ms) {
      child.kill("SIGTERM");
      killAfter(ms);
    },
  };
}

function awaitEnd(child: ChildProcess, seen: Child["seen"]): Promise<void> {
  return new Promise((resolve) => {
    child.once("close", () => resolve());
    child.once("exit", (code, signal) => {
      seen.exit = { code, signal };
      setTimeout(resolve, pipesGraceMs).unref();
    });
    child.on("error", (error) => {
      if (child.pid !== undefined) return;
      seen.spawnError = error;
      resolve();
    });
  });
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
