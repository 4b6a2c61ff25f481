// Memory of a service's child processes, as the system tells it (Linux).
import { readdirSync, readFileSync } from "node:fs";

const sampleMs = 20;
/** Linux tells times to programs in this unit, whatever the kernel's own. */
const ticksPerS = 100;

export interface ProcessMemory {
  residentBytes: number;
  /** The greatest that it ever was. */
  peakBytes: number;
}

export interface ChildMemory extends ProcessMemory {
  pid: number;
  /** Its module's name. */
  name: string;
  /** Processor time of all its threads. */
  cpuSeconds: number;
  /** By performance.now(). */
  firstSeenMs: number;
  lastSeenMs: number;
}

export interface Watch {
  /** Children seen so far, in order of their appearance. */
  readonly children: readonly ChildMemory[];
  /** The greatest sum of resident memory of those that ran at the same time. */
  readonly togetherBytes: number;
  stop(): void;
}

/** Undefined where the process is gone, or the system has no /proc. */
export function memoryOf(pid: number): ProcessMemory | undefined {
  try {
    return parseStatus(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return undefined;
  }
}

/** Of a /proc/<pid>/status text; undefined for a process that has no memory any more. */
export function parseStatus(status: string): ProcessMemory | undefined {
  const bytes = (name: string) => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  };
  const residentBytes = bytes("VmRSS");
  const peakBytes = bytes("VmHWM") ?? residentBytes;
  return residentBytes === undefined || peakBytes === undefined ? undefined : { residentBytes, peakBytes };
}

/** Of a /proc/<pid>/stat text: user and system time of all threads, in seconds. */
export function parseCpuSeconds(stat: string): number {
  // The name, in brackets, may hold spaces and brackets itself.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerS;
}

function cpuSecondsOf(pid: number): number {
  try {
    return parseCpuSeconds(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return 0;
  }
}

/** Children of all threads of a process. */
function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, "latin1")
        .split(" ")
        .filter((text) => text !== "")
        .map(Number),
    );
  } catch {
    return [];
  }
}

function moduleOf(pid: number): string {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    const module = words.find((word) => /\.[cm]?js$/.test(word)) ?? "";
    return module.replace(/^.*\//, "").replace(/\.[cm]?js$/, "");
  } catch {
    return "";
  }
}

/** Looks at the children of `pid` fifty times a second until it is stopped. */
export function watchChildren(pid: number): Watch {
  const seen = new Map<number, ChildMemory>();
  let togetherBytes = 0;
  const look = () => {
    let sum = 0;
    for (const child of childrenOf(pid)) {
      const memory = memoryOf(child);
      if (!memory) continue;
      const nowMs = performance.now();
      const known = seen.get(child);
      // Between fork and exec a child is its parent: the last look counts, and a peak never shrinks after it.
      seen.set(child, {
        pid: child,
        ...memory,
        name: moduleOf(child) || known?.name || "",
        // A process that is just ending tells none.
        cpuSeconds: Math.max(cpuSecondsOf(child), known?.cpuSeconds ?? 0),
        firstSeenMs: known?.firstSeenMs ?? nowMs,
        lastSeenMs: nowMs,
      });
      if (known) sum += memory.residentBytes;
    }
    togetherBytes = Math.max(togetherBytes, sum);
  };
  const timer = setInterval(look, sampleMs);
  return {
    get children() {
      return [...seen.values()];
    },
    get togetherBytes() {
      return togetherBytes;
    },
    stop: () => clearInterval(timer),
  };
}
