import { spawn } from "node:child_process";
import { once } from "node:events";
import { limMain } from "./support.ts";

export interface LimRun {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs `lim` to its end. */
export async function lim(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<LimRun> {
  const child = spawn(process.execPath, [limMain, ...args], {
    // Nor does it find the stack of whoever runs the tests.
    env: { ...process.env, LIM_HOME: "/nonexistent", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const [code] = (await once(child, "close")) as [number | null];
  process.off("exit", kill);
  return { code, stdout, stderr };
}
