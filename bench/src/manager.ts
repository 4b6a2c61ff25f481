// A manager with a long history of tasks and many lists: latency of its listings beside an idle baseline, and time,
// SQL statements and memory of planning: `node bench/dist/manager.js --help`.
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { LimError } from "@lim/contracts";
import { createCaller } from "./manager/caller.ts";
import { managerCpuSeconds, redisCpuSeconds } from "./manager/cpu.ts";
import { seedHistory } from "./manager/history.ts";
import { type LatencyRow, latencyTable, measureLatencies } from "./manager/latencies.ts";
import { measurePlanning, type PlanningFigures, planningText } from "./manager/planning.ts";
import { type ManagerServers, memoryOf, startManager } from "./manager/service.ts";
import { startBenchServers } from "./servers.ts";

const goalP99Ms = 50;
const goalPlanS = 5;
const masterLock = "bench_tasks";
/** No list has it, so planning has nothing to do. */
const noList = "00000000-0000-4000-8000-00000000beef";

const help = `Usage: node bench/dist/manager.js [options]
  --tasks N     ended tasks on record (default 10000)
  --task-lists N  lists that they are of (default 500)
  --queued N    pending tasks (default 1000)
  --requests N  requests of each kind (default 200)
  --lists N     lists to plan (default 10000)
  --part P      tasks, planning or both (default both)
  --seed N      of the data and the order of requests (default 1)
  --json PATH   where to write the figures (default reports/bench-manager.json)
Exit code 1 where a goal is missed: p99 of every listing under ${goalP99Ms} ms, a plan under ${goalPlanS} s.`;

interface Options {
  tasks: number;
  taskLists: number;
  queued: number;
  requests: number;
  lists: number;
  part: "tasks" | "planning" | "both";
  seed: number;
  json: string;
}

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      tasks: { type: "string", default: "10000" },
      "task-lists": { type: "string", default: "500" },
      queued: { type: "string", default: "1000" },
      requests: { type: "string", default: "200" },
      lists: { type: "string", default: "10000" },
      part: { type: "string", default: "both" },
      seed: { type: "string", default: "1" },
      json: { type: "string", default: "reports/bench-manager.json" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const positive = (name: string, text: string) => {
    const value = Number(text);
    if (Number.isInteger(value) && value > 0) return value;
    throw new LimError("bad_input", `--${name} must be a whole number above 0, got "${text}"`);
  };
  const { part } = values;
  if (part !== "tasks" && part !== "planning" && part !== "both")
    throw new LimError("bad_input", `--part must be tasks, planning or both, got "${part}"`);
  return {
    tasks: positive("tasks", values.tasks),
    taskLists: positive("task-lists", values["task-lists"]),
    queued: positive("queued", values.queued),
    requests: positive("requests", values.requests),
    lists: positive("lists", values.lists),
    part,
    seed: positive("seed", values.seed),
    json: values.json,
  };
}

interface TaskFigures {
  seedSeconds: number;
  rows: LatencyRow[];
  memory: Awaited<ReturnType<typeof memoryOf>>;
}

async function measureTasks(
  servers: ManagerServers,
  storageRoot: string,
  options: Options,
): Promise<TaskFigures> {
  const closers: (() => Promise<unknown>)[] = [];
  const { tasks: ended, taskLists: lists, queued, seed, requests } = options;
  try {
    const history = await seedHistory(servers.redisUrl, masterLock, { ended, queued, lists, seed });
    console.error(`${ended} ended and ${queued} pending tasks written in ${history.seconds.toFixed(1)} s`);
    const env = {
      LIM_STORAGE_ROOT: storageRoot,
      LIM_MANAGER_MASTER_LOCK: masterLock,
      LIM_LISTS: noList,
    };
    const manager = await startManager(servers, env, closers);
    // The master at work is part of what is measured: it looks at the queue once a second.
    await manager.process.waitForLine(/"Became master"|"planned"/, { timeoutMs: 60_000 });
    const caller = createCaller(manager.url);
    closers.push(async () => caller.close());
    const cpuSeconds = async () =>
      (await managerCpuSeconds(manager.url)) + (await redisCpuSeconds(servers.redisUrl));
    const rows = await measureLatencies(caller, history, { requests, seed, cpuSeconds });
    return { seedSeconds: history.seconds, rows, memory: await memoryOf(manager) };
  } finally {
    for (const close of closers.reverse()) await close().catch(() => undefined);
  }
}

/** What missed its goal. */
function missed(tasks: TaskFigures | undefined, planning: PlanningFigures | undefined): string[] {
  const slow = (tasks?.rows ?? []).filter((row) => row.p99Ms >= goalP99Ms);
  const plans = (planning?.plans ?? []).filter((plan) => plan.seconds >= goalPlanS);
  return [
    ...slow.map((row) => `${row.name}: p99 ${row.p99Ms.toFixed(1)} ms, goal ${goalP99Ms}`),
    ...plans.map((plan) => `planning: ${plan.seconds.toFixed(2)} s, goal ${goalPlanS}`),
  ];
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options === undefined) {
    console.log(help);
    return;
  }
  // Below the system's temporary folder: Postgres may run under an account of its own.
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-manager-"));
  // Postgres runs under an account of its own where this is root, and must reach its folder.
  await chmod(dir, 0o711);
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const servers = { dir, ...(await startBenchServers(dir, closers)) };
    const rootOf = async (name: string) => {
      const root = join(dir, name);
      await mkdir(root, { recursive: true });
      return root;
    };
    const tasks =
      options.part === "planning" ? undefined : await measureTasks(servers, await rootOf("tasks"), options);
    if (tasks) {
      console.log(latencyTable(tasks.rows));
      console.log(`the manager: ${tasks.memory.rssMiB?.toFixed(0) ?? "?"} MiB resident\n`);
    }
    const planning =
      options.part === "tasks"
        ? undefined
        : await measurePlanning({ ...servers, storageRoot: await rootOf("planning") }, options);
    if (planning) console.log(planningText(planning));
    const faults = missed(tasks, planning);
    console.log(faults.length === 0 ? "\nevery goal is met" : `\nmissed:\n${faults.join("\n")}`);
    await mkdir(dirname(options.json), { recursive: true });
    const machine = { cpu: cpus()[0]?.model ?? "", cores: cpus().length, node: process.version };
    const report = { bench: "manager", options, machine, tasks, planning, missed: faults };
    await writeFile(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
    console.log(`figures: ${options.json}`);
    if (faults.length > 0) process.exitCode = 1;
  } finally {
    for (const close of closers.reverse()) await close().catch(() => undefined);
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

await main();
