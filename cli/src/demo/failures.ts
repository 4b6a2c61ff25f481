import { defaults, LimError } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { watchTask } from "../commands/watch.ts";
import { alive, apiOf, type DemoContext, kill, labelOf, managerOf, untilServed } from "./context.ts";
import { startLoad } from "./load.ts";

const takeoverLimitMs = defaults.masterLeaseTtlMs + 1_000;
const loadCallers = 8;
/** While an index is built on the same two cores: a steady load that leaves it room. */
const loadCallersWhileBuilding = 2;
const reloadLimitMs = 60_000;
/** Beyond the TTL, for the time between two looks. */
const expiryMarginMs = 1_500;

/** Kills the master; the other manager takes over within the lease and a second. */
export async function checkTakeover(context: DemoContext): Promise<void> {
  const managers = alive(context, "index-manager");
  const leads = await Promise.all(managers.map((manager) => apiOf(context, manager).isMaster()));
  const master = managers[leads.indexOf(true)];
  const survivor = managers.find((manager) => manager !== master);
  if (!master || !survivor) throw new LimError("internal", "two managers, one of them master, were expected");
  const killedMs = performance.now();
  await kill(context, master);
  const api = apiOf(context, survivor);
  await eventually(`${survivor.name} leads`, async () => (await api.isMaster()) || undefined, {
    timeoutMs: takeoverLimitMs * 2,
  });
  const takeoverMs = performance.now() - killedMs;
  context.report.figure("takeover_ms", takeoverMs);
  context.report.check(
    "another manager takes over from a killed master",
    takeoverMs <= takeoverLimitMs,
    `${master.name} killed, ${survivor.name} leads after ${(takeoverMs / 1000).toFixed(1)} s (limit ${takeoverLimitMs / 1000} s)`,
  );
}

/** A one-time task through the survivor; its index is loaded while matches run, and none fails. */
export async function checkRebuildAndReload(context: DemoContext): Promise<void> {
  const { source, report, signal } = context;
  const label = labelOf(context, source.medium);
  const served = () =>
    context.indexOnly
      .labels()
      .filter((entry) => entry.label === label)
      .map((entry) => entry.indexId);
  const before = new Set(served());
  const answeredBy = new Map<string, number>();
  const load = startLoad({
    plugin: context.indexOnly,
    label,
    probes: source.probesOf(source.medium, 200),
    callers: loadCallersWhileBuilding,
    onAnswer: ({ indexId }) => answeredBy.set(indexId ?? "", (answeredBy.get(indexId ?? "") ?? 0) + 1),
  });
  let reloaded = false;
  try {
    const manager = managerOf(context);
    const { task_id: taskId } = await manager.createTask({ list_id: label }, { signal });
    const task = await watchTask(manager, taskId, signal);
    report.check(
      "a one-time task through the survivor's API is built",
      task.status === "success",
      task.status === "success" ? `index ${taskId}` : `${task.error?.desc}: ${task.error?.detail}`,
    );
    if (task.status !== "success") return;
    const startedMs = performance.now();
    await eventually(
      "every matcher serves the new index, and answers name it",
      () =>
        (served().every((indexId) => indexId === taskId) && (answeredBy.get(taskId) ?? 0) > 100) || undefined,
      { timeoutMs: reloadLimitMs },
    );
    reloaded = true;
    report.check(
      "the new index is served without a restart",
      !before.has(taskId),
      `all matchers switched ${((performance.now() - startedMs) / 1000).toFixed(1)} s after the build; ` +
        `${answeredBy.get(taskId)} answers from the new index so far`,
    );
  } finally {
    const result = await load.stop();
    report.figure("reload_failed", result.failed);
    report.addFailedMatches(result.failed);
    report.check(
      "no match fails while the index is reloaded",
      reloaded && result.failed === 0,
      `${result.sent} matches, ${result.failed} failed ${result.failures[0] ?? ""}`.trimEnd(),
    );
  }
}

/** Kills a matcher under load: the other goes on, and the dead one's label keys expire within their TTL. */
export async function checkMatcherDeath(context: DemoContext): Promise<void> {
  const { source, report } = context;
  await untilServed(context, source.large, 2);
  const label = labelOf(context, source.large);
  const [victim] = alive(context, "indexed-matcher");
  if (!victim) throw new LimError("internal", "no matcher runs");
  const port = new URL(victim.url).port;
  const keysOfVictim = () =>
    context.indexOnly.labels().filter((entry) => entry.matcherId.endsWith(`:${port}`));
  if (keysOfVictim().length === 0) throw new LimError("internal", `${victim.name} serves nothing`);
  const load = startLoad({
    plugin: context.indexOnly,
    label,
    probes: source.probesOf(source.large, 200),
    callers: loadCallers,
  });
  try {
    const killedMs = performance.now();
    await kill(context, victim);
    await eventually(
      "the label keys of the killed matcher expire",
      () => keysOfVictim().length === 0 || undefined,
      {
        timeoutMs: defaults.labelKeyTtlMs * 3,
      },
    );
    const expiryMs = performance.now() - killedMs;
    report.figure("label_key_expiry_ms", expiryMs);
    report.check(
      "a killed matcher's label keys expire",
      expiryMs <= defaults.labelKeyTtlMs + expiryMarginMs,
      `${victim.name} killed, its keys were gone after ${(expiryMs / 1000).toFixed(1)} s (TTL ${defaults.labelKeyTtlMs / 1000} s)`,
    );
  } finally {
    const result = await load.stop();
    report.addFailedMatches(result.failed);
    report.check(
      "the other matcher goes on",
      result.failed === 0 && result.sent > 0,
      `${result.sent} matches, ${result.failed} failed ${result.failures[0] ?? ""}`.trimEnd(),
    );
  }
}
