import { defaults, LimError } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { eventually, type Service } from "@lim/testkit";
import { type Caller, createCaller } from "./caller.ts";
import { managerCpuSeconds } from "./cpu.ts";
import { leading } from "./history.ts";
import { dim, type SeededLists, seedLists } from "./lists.ts";
import { type ManagerServers, memoryOf, startManager } from "./service.ts";
import { type SqlCounter, startSqlCounter } from "./sql-counter.ts";

const masterLock = "bench_planning";
const warmPreviews = 5;
const secondPlanAfterS = 15;
const plannedLimitMs = 300_000;
/** No statement for this long: what a start brings about is over. */
const quietMs = 2_000;

interface Statements {
  total: number;
  byText: { text: string; count: number }[];
}
interface PreviewFigure {
  seconds: number;
  /** Of the manager's process: what neighbours on the machine do not change much. */
  cpuSeconds: number;
  statements: number;
}
export interface PlanningFigures {
  seeded: SeededLists;
  /** `GET /1/plan` of a manager that is no master: the first answer of its process, and later ones. */
  previewCold: PreviewFigure & Statements;
  previewsWarm: PreviewFigure[];
  previewMemory: Awaited<ReturnType<typeof memoryOf>>;
  /** As the master logs them: the first plan of its process creates the tasks, the second finds them open. */
  plans: { seconds: number; lists: number; created: number }[];
  /** From the election to the end of the first plan; the first run of retention goes on beside it. */
  planStatements: Statements;
  /** In the same time, of the manager's process. */
  planCpuSeconds: number;
  planMemory: Awaited<ReturnType<typeof memoryOf>>;
}

export async function measurePlanning(
  servers: ManagerServers & { db: FacesDb; storageRoot: string },
  options: { lists: number; seed: number },
): Promise<PlanningFigures> {
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const seeded = await seedLists(servers.db, servers.storageRoot, options);
    console.error(`${seeded.lists} lists written in ${seeded.seconds.toFixed(1)} s`);
    const sql = await startSqlCounter(servers.postgresUrl);
    closers.push(() => sql.close());
    const start = () =>
      startManager({ ...servers, postgresUrl: sql.url }, settings(servers.storageRoot), closers);
    // Led from here, so that the manager under test is no master: nothing else runs in it, and nothing is cached.
    const previews = await leading(servers.redisUrl, masterLock, async () =>
      measurePreviews(await start(), sql, seeded),
    );
    await closers.pop()?.();
    let manager: Service | undefined;
    let cpuBefore = 0;
    await leading(servers.redisUrl, masterLock, async () => {
      manager = await start();
      await untilQuiet(sql);
      cpuBefore = await managerCpuSeconds(manager.url);
      sql.reset();
    });
    if (manager === undefined) throw new LimError("internal", "no manager was started");
    const first = await plannedLine(manager, 1);
    const planCpuSeconds = (await managerCpuSeconds(manager.url)) - cpuBefore;
    const planStatements = { total: sql.total(), byText: sql.byText() };
    const second = await plannedLine(manager, 2);
    expectPlanned(first, seeded);
    return {
      seeded,
      ...previews,
      plans: [first, second],
      planStatements,
      planCpuSeconds,
      planMemory: await memoryOf(manager),
    };
  } finally {
    for (const close of closers.reverse()) await close().catch(() => undefined);
  }
}

function settings(storageRoot: string): Record<string, string> {
  return {
    LIM_STORAGE_ROOT: storageRoot,
    LIM_MANAGER_MASTER_LOCK: masterLock,
    LIM_DESCRIPTOR_DIM: String(dim),
    LIM_DESCRIPTOR_VERSION: String(defaults.descriptorVersion),
    LIM_ENGINE: defaults.engine,
    LIM_LISTS: "dynamic",
    LIM_MIN_INDEXING_LIST_SIZE: "1",
    // Updates under a rule about removals: every stale list's removals must be counted.
    LIM_REBUILD_DEFAULT: "false",
    LIM_MAX_REMOVAL_FOR_REBUILD: "1000",
    LIM_PLANNING_SETTLE_MS: "0",
    LIM_PLANNING_PERIOD_S: String(secondPlanAfterS),
  };
}

async function measurePreviews(
  manager: Service,
  sql: SqlCounter,
  seeded: SeededLists,
): Promise<Pick<PlanningFigures, "previewCold" | "previewsWarm" | "previewMemory">> {
  const caller = createCaller(manager.url);
  try {
    await untilQuiet(sql);
    const cold = await preview(manager, caller, sql, seeded);
    const previewCold = { ...cold, total: sql.total(), byText: sql.byText() };
    const previewsWarm: PreviewFigure[] = [];
    for (let i = 0; i < warmPreviews; i++) previewsWarm.push(await preview(manager, caller, sql, seeded));
    return { previewCold, previewsWarm, previewMemory: await memoryOf(manager) };
  } finally {
    caller.close();
  }
}

async function preview(
  manager: Service,
  caller: Caller,
  sql: SqlCounter,
  seeded: SeededLists,
): Promise<PreviewFigure> {
  sql.reset();
  const cpuBefore = await managerCpuSeconds(manager.url);
  const startedMs = performance.now();
  const plan = await caller.json<{ count: number; creates: number; decisions: unknown[] }>(
    "/1/plan?limit=10000",
  );
  const seconds = (performance.now() - startedMs) / 1000;
  const creates = seeded.missing + seeded.stale;
  if (plan.count !== seeded.lists || plan.creates !== creates)
    throw new LimError(
      "internal",
      `the plan considers ${plan.count} lists and would build ${plan.creates}, not ${seeded.lists} and ${creates}`,
    );
  const cpuSeconds = (await managerCpuSeconds(manager.url)) - cpuBefore;
  return { seconds, cpuSeconds, statements: sql.total() };
}

async function untilQuiet(sql: SqlCounter): Promise<void> {
  let last = -1;
  await eventually(
    "no statement is sent for a while",
    () => {
      const now = sql.total();
      const quiet = now === last;
      last = now;
      return quiet || undefined;
    },
    { timeoutMs: plannedLimitMs, intervalMs: quietMs },
  );
}

/** The nth line of the log that says what was planned. */
async function plannedLine(manager: Service, nth: number): Promise<PlanningFigures["plans"][number]> {
  return eventually(
    `plan ${nth} is made`,
    () => {
      const line = manager.process.lines.filter((text) => text.includes('"msg":"planned"'))[nth - 1];
      if (line === undefined) return undefined;
      const { seconds, lists, created } = JSON.parse(line) as PlanningFigures["plans"][number];
      return { seconds, lists, created };
    },
    { timeoutMs: plannedLimitMs },
  );
}

function expectPlanned(plan: PlanningFigures["plans"][number], seeded: SeededLists): void {
  if (plan.lists === seeded.lists && plan.created === seeded.missing + seeded.stale) return;
  throw new LimError("internal", `the master planned ${plan.created} tasks of ${plan.lists} lists`);
}

export function planningText(figures: PlanningFigures): string {
  const { seeded, previewCold, previewsWarm, plans, planStatements } = figures;
  const memory = ({ rssMiB, peakMiB }: PlanningFigures["planMemory"]) =>
    `${rssMiB?.toFixed(0) ?? "?"} MiB resident, ${peakMiB?.toFixed(0) ?? "?"} at its peak`;
  const spent = ({ seconds, cpuSeconds }: PreviewFigure) =>
    `${seconds.toFixed(2)} s (${cpuSeconds.toFixed(2)} s of processor)`;
  const warm = previewsWarm.map(spent).join(", ");
  const statements = (of: Statements) =>
    of.byText.map(({ text, count }) => `  ${String(count).padStart(6)}  ${text}`);
  return [
    `planning over ${seeded.lists} lists, ${seeded.missing} without an index, ${seeded.stale} stale`,
    `GET /1/plan, first of its process: ${spent(previewCold)}, ${previewCold.statements} SQL statements`,
    ...statements(previewCold),
    `GET /1/plan, later: ${warm}, ${previewsWarm[0]?.statements ?? 0} SQL statements each`,
    `that manager: ${memory(figures.previewMemory)}`,
    ...plans.map(
      (plan, i) =>
        `real planning ${i + 1} of a master's process: ${plan.seconds.toFixed(2)} s, ${plan.created} tasks created`,
    ),
    `SQL from the election to the end of the first plan, retention's first run beside it: ${planStatements.total} statements, ${figures.planCpuSeconds.toFixed(2)} s of processor`,
    ...statements(planStatements),
    `that manager: ${memory(figures.planMemory)}`,
  ].join("\n");
}
