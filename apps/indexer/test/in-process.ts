import type { BuildRequest } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import { type EngineAdapter, loadEngine } from "@lim/vector-index";
import type { BuildContext } from "../src/build-context.ts";
import { runBuild } from "../src/build-job.ts";
import { runPublish } from "../src/publish-job.ts";

const silent = { info: () => undefined, warn: () => undefined };

/** A build's context in this process: many builds without the start of two processes each. */
export async function contextOf(
  stores: { db: FacesDb; storage: IndexStorage },
  request: BuildRequest,
  over: Partial<BuildContext> & { engine?: EngineAdapter } = {},
): Promise<BuildContext> {
  return {
    ...stores,
    request,
    engine: over.engine ?? (await loadEngine(request.engine)),
    memoryLimitBytes: 2 ** 40,
    report: () => undefined,
    nowMs: () => performance.now(),
    log: silent,
    signal: new AbortController().signal,
    ...over,
  };
}

/** What an indexer's two processes do one after the other. */
export async function buildHere(context: BuildContext): Promise<PublishedIndex> {
  const result = await runBuild(context);
  if ("published" in result) return result.published;
  const { storage, report, log, signal } = context;
  return runPublish({ saved: result.saved, storage, report, log, signal });
}
