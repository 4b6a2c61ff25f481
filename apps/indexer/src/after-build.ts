import type { BuildRequest } from "@lim/contracts";
import type { IndexStorage } from "@lim/index-storage";
import type { JobLog } from "./build-context.ts";
import type { BuildEnd } from "./build-process.ts";
import { publishedReport } from "./child.ts";

/**
 * What is left to do when a build's processes are gone, however they ended. One that died between publishing and saying
 * so did succeed; of any other, its own folder in the staging is discarded, not that of another process at the same attempt.
 */
export async function settleBuild(
  input: { storage: IndexStorage; request: BuildRequest; work: string; log: JobLog },
  end: BuildEnd,
): Promise<BuildEnd> {
  if (!end.error) return end;
  const { storage, request, work, log } = input;
  const identity = { label: request.list_id, indexId: request.task_id };
  try {
    await storage.discard({ ...identity, attempt: request.attempt, work });
  } catch (error) {
    log.warn({ err: error, task_id: request.task_id }, "staging was not discarded, it will be collected");
  }
  // Only ends that say nothing of the cause may hide a success; a refusal (conflict, fault in the list) is one.
  if (end.error.errorName !== "build_crashed" && end.error.errorName !== "build_cancelled") return end;
  try {
    const published = await storage.find(identity);
    if (!published) return end;
    return { ...end, report: publishedReport(published), error: undefined };
  } catch (error) {
    log.warn({ err: error, task_id: request.task_id }, "cannot tell whether the build had published");
    return end;
  }
}
