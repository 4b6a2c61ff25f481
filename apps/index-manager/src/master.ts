import type { LeaderElection, Leadership } from "@lim/coordination";
import { managerLimits } from "./limits.ts";
import { clearMasterGauges, createLookup, type LookupDeps } from "./lookup.ts";
import { type PlanningDeps, planIfDue } from "./planning.ts";
import { createRetention, type RetentionDeps } from "./retention.ts";
import { repeat } from "./routine.ts";

export interface MasterDeps extends LookupDeps, PlanningDeps, RetentionDeps {
  lookupPeriodMs: number;
  retentionPeriodMs: number;
}

/** Stands for election until the signal fires; while this manager leads, plans, looks up and retains, side by side. */
export async function runMaster(
  deps: MasterDeps,
  election: LeaderElection,
  signal: AbortSignal,
): Promise<void> {
  await election.run(
    async (leadership) => {
      deps.metrics.isMaster.set(1);
      deps.metrics.leadership.inc({ event: "acquired" });
      deps.log.debug({ epoch: leadership.epoch }, "planning, lookup and retention begin");
      let end: "failed" | "lost" | "released" = "failed";
      try {
        await lead(deps, leadership);
        end = signal.aborted ? "released" : "lost";
      } finally {
        deps.metrics.leadership.inc({ event: end });
        deps.metrics.isMaster.set(0);
        clearMasterGauges(deps.metrics);
        deps.log.debug({ epoch: leadership.epoch }, "planning, lookup and retention have ended");
      }
    },
    { signal },
  );
}

async function lead(deps: MasterDeps, leadership: Leadership): Promise<void> {
  const { log } = deps;
  const { signal } = leadership;
  const sinceMs = performance.now();
  const lookup = createLookup(deps, leadership);
  const retention = createRetention(deps, leadership);
  await Promise.all([
    repeat(
      "lookup",
      async () => {
        await lookup.once();
        return { nextAfterMs: deps.lookupPeriodMs };
      },
      { failurePauseMs: deps.lookupPeriodMs, log, signal },
    ),
    repeat(
      "planning",
      async () => {
        await planIfDue(deps, { ...leadership, sinceMs });
        return { nextAfterMs: Math.min(managerLimits.planTickMs, deps.lookupPeriodMs) };
      },
      { failurePauseMs: managerLimits.planRetryMs, log, signal },
    ),
    repeat(
      "retention",
      async () => {
        await retention.once();
        return { nextAfterMs: deps.retentionPeriodMs };
      },
      {
        // Its reading of all indexes would compete with that of the first plan, for which lists wait.
        firstAfterMs: Math.min(deps.retentionPeriodMs, managerLimits.firstRetentionAfterMs),
        failurePauseMs: deps.retentionPeriodMs,
        log,
        signal,
      },
    ),
  ]);
}
