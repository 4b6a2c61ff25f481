import { openIndexStorage } from "@lim/index-storage";
import { createLogger } from "@lim/service-kit/logger";
import { type ChildWork, publishedReport, serveOrder } from "./child.ts";
import { type BuildReport, publishOrderSchema } from "./ipc.ts";
import { runPublish } from "./publish-job.ts";

serveOrder(publish);

async function publish(message: unknown, { signal, report }: ChildWork): Promise<BuildReport> {
  const { saved, storageRoot, logLevel } = publishOrderSchema.parse(message);
  const log = createLogger({ service: "indexer-publish", level: logLevel, sync: true }).child({
    task_id: saved.index_id,
    list_id: saved.label,
    attempt: saved.attempt,
  });
  const storage = await openIndexStorage({ root: storageRoot });
  const published = await runPublish({ saved, storage, report, log, signal });
  const { count, revision, build } = published.meta;
  log.info({ count, revision, mode: build.mode, skipped: build.skipped, phases: build.phases }, "published");
  return publishedReport(published);
}
