import { randomUUID } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { buildPhases } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import type { Stack } from "./support.ts";

export interface HoldPoint {
  /** Which of a build's two processes. */
  process: "build" | "publish";
  /** Right after it told this phase, or when it starts. */
  phase: (typeof buildPhases)[number] | "start";
  /** At least this much of the phase done; 0 where not given. */
  done?: number;
}

/** Stops one process of a build (SIGSTOP) at a point that a test names. One for each indexer. */
export interface Holder {
  /** For the indexer's process. */
  env: Record<string, string>;
  /** The next process that comes to this point stops there. */
  arm(point: HoldPoint): Promise<void>;
  /** Waits until it has stopped; its process id. SIGCONT wakes it. */
  held(): Promise<number>;
}

const preload = new URL("./fixtures/hold.mjs", import.meta.url).href;

export function createHolder(stack: Stack): Holder {
  const file = join(stack.scratch, `hold-${randomUUID()}`);
  const heldFile = `${file}.held`;
  return {
    env: { LIM_TEST_HOLD: file, NODE_OPTIONS: `--import=${preload}` },
    async arm(point) {
      await rm(heldFile, { force: true });
      await writeFile(file, JSON.stringify({ done: 0, ...point }));
    },
    held: () =>
      eventually(
        "a process of the build stops",
        async () => {
          const pid = Number(await readFile(heldFile, "utf8"));
          return (await isStopped(pid)) ? pid : undefined;
        },
        { timeoutMs: 60_000, intervalMs: 5 },
      ),
  };
}

async function isStopped(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "latin1");
  return /^State:\s+T/m.test(status);
}
