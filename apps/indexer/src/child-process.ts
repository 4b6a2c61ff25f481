import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { EngineName, Progress } from "@lim/contracts";
import type { BuildStage, Seen } from "./build-end.ts";
import { type BuildOrder, type BuildReport, buildReportSchema, type PublishOrder } from "./ipc.ts";

/** From a process' last word to SIGKILL. */
const exitGraceMs = 10_000;
/** Once the process is gone, how long its pipes may stay open (another process may have inherited them). */
const pipesGraceMs = 2_000;
const stderrTailChars = 1_500;
/** MiB of new objects before the collector looks at them. With Node's 16 some 50 MB of read buffers lie about; no slower. */
const execArgv = ["--max-semi-space-size=1"];
/** glibc gives blocks from this size on back to the system when they are freed: else 30 MB of them stay. */
const allocatorEnv = { MALLOC_MMAP_THRESHOLD_: "65536" };

const moduleOf = (name: string) =>
  fileURLToPath(new URL(import.meta.url.endsWith(".ts") ? `./${name}.ts` : `./${name}.js`, import.meta.url));

/** One process of a build. */
export interface Child {
  readonly stage: BuildStage;
  readonly pid: number | undefined;
  readonly seen: Pick<Seen, "last" | "exit" | "spawnError" | "stderr">;
  /** Resolves when the process is gone and all it sent was read. */
  readonly gone: Promise<void>;
  send(order: BuildOrder | PublishOrder): void;
  onProgress(listener: (progress: Progress) => void): void;
  kill(): void;
  /** SIGTERM, then SIGKILL. */
  end(graceMs: number): void;
}

export interface ChildParts {
  /** For tests: the module to run instead. */
  module?: string | undefined;
  /** For tests: milliseconds that it may live on after its last word. */
  exitGraceMs?: number | undefined;
  /** Loaded while it waits for its order. */
  engine?: EngineName | undefined;
  /** Folder where its modules are kept compiled. */
  cacheDir?: string | undefined;
}

export function startChild(stage: BuildStage, parts: ChildParts = {}): Child {
  const { module = moduleOf(`${stage}-child`), exitGraceMs: graceMs = exitGraceMs, engine, cacheDir } = parts;
  const child = fork(module, engine === undefined ? [] : [engine], {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
    execArgv,
    env: {
      ...(cacheDir === undefined ? {} : { NODE_COMPILE_CACHE: cacheDir }),
      ...process.env,
      ...allocatorEnv,
    },
  });
  let onProgress: (progress: Progress) => void = () => {};
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
    onProgress(listener) {
      onProgress = listener;
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
