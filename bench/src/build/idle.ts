import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type EngineName, LimError } from "@lim/contracts";
import type { IdleMemory } from "./idle-child.ts";
import { buildModules } from "./indexer.ts";
import { type Run, stepSignal } from "./run.ts";

export type { IdleMemory } from "./idle-child.ts";

/** Resident memory of a process of a build without work. */
export async function measureIdle(
  run: Run,
  engine: EngineName,
  stage: keyof typeof buildModules,
): Promise<IdleMemory> {
  const { dim, m, efConstruction } = run.options;
  const signal = stepSignal(run);
  const args = [buildModules[stage], engine, dim, m, efConstruction].map(String);
  const child = fork(fileURLToPath(new URL("./idle-child.js", import.meta.url)), args, { execArgv: [] });
  const told = Promise.withResolvers<IdleMemory>();
  const exited = Promise.withResolvers<void>();
  const stop = () => told.reject(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  child.once("message", (memory) => told.resolve(memory as IdleMemory));
  child.once("error", told.reject);
  child.once("exit", (code, killedBy) => {
    told.reject(new LimError("internal", `the idle ${stage} process ended with ${killedBy ?? code}`));
    exited.resolve();
  });
  try {
    return await told.promise;
  } finally {
    signal.removeEventListener("abort", stop);
    child.kill("SIGKILL");
    await exited.promise;
  }
}
