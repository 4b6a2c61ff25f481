import { type IndexSummary, LimError } from "@lim/contracts";
import { type IndexStorage, newestOf, type PublishedIndex } from "@lim/index-storage";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { indexes, indexParams, json, labelQuery } from "./schemas.ts";

export interface IndexApiDeps {
  storage: IndexStorage;
  descriptorVersion: number;
}

const tags = ["indexes"];

function summary({ indexId, label, meta, sizeBytes }: PublishedIndex): IndexSummary {
  return {
    index_id: indexId,
    index_type: meta.index_type,
    label,
    descriptor_version: meta.descriptor_version,
    engine: meta.engine.name,
    size: sizeBytes,
    count: meta.count,
    revision: meta.revision,
    create_time: meta.create_time,
  };
}

const answer = (found: readonly PublishedIndex[]) => ({ count: found.length, indexes: found.map(summary) });

/** Published indexes, read from the storage: the only source of what exists. */
export const indexRoutes =
  (deps: IndexApiDeps): FastifyPluginAsyncZod =>
  async (app) => {
    const listed = (label: string | undefined) => deps.storage.list(label === undefined ? {} : { label });

    app.get(
      "/indexes",
      {
        schema: {
          operationId: "getIndexes",
          description: "Published indexes; of one list the newest first.",
          tags,
          querystring: labelQuery,
          response: { 200: json("Indexes", indexes), ...errorResponses("bad_input", "storage_unavailable") },
        },
      },
      async (request) => answer((await listed(request.query.label)).indexes),
    );

    app.get(
      "/indexes/relevant",
      {
        schema: {
          operationId: "getRelevantIndexes",
          description:
            "The index of each list that matchers serve: the newest one of the served descriptor version.",
          tags,
          querystring: labelQuery,
          response: { 200: json("Indexes", indexes), ...errorResponses("bad_input", "storage_unavailable") },
        },
      },
      async (request) => {
        const listing = await listed(request.query.label);
        const labels = [...new Set(listing.indexes.map((index) => index.label))].toSorted();
        return answer(labels.flatMap((label) => newestOf(listing, label, deps.descriptorVersion) ?? []));
      },
    );

    app.delete(
      "/indexes/:index_id",
      {
        schema: {
          operationId: "removeIndex",
          description: "Removes an index. Matchers that hold it unload it; its id is never published again.",
          tags,
          params: indexParams,
          response: {
            204: z.undefined().describe("Removed"),
            ...errorResponses("bad_input", "not_found", "storage_unavailable"),
          },
        },
      },
      async (request, reply) => {
        const { index_id: indexId } = request.params;
        // Asked first: removing leaves a mark, and an id that is being built is cancelled through its task.
        const found = await deps.storage.find({ indexId }).catch((thrown) => {
          if (thrown instanceof LimError && thrown.errorName === "index_refused") return "unreadable";
          throw thrown;
        });
        if (!found || !(await deps.storage.remove({ indexId })).removed)
          throw new LimError("not_found", `no index ${indexId}`);
        request.log.info({ index_id: indexId }, "index removed");
        return reply.code(204).send(undefined);
      },
    );
  };
