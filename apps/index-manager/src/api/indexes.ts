import { type IndexSummary, uuidSchema } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, newestOf, type PublishedIndex } from "@lim/index-storage";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { managerLimits } from "../limits.ts";
import { cursorQuery, limitQuery, numberQuery, pageOf } from "./paging.ts";
import { indexes, json } from "./schemas.ts";

export interface IndexApiDeps {
  db: FacesDb;
  storage: IndexStorage;
  descriptorVersion: number;
}

export const indexTags = ["indexes"];

const labelQuery = uuidSchema.optional().describe("Only indexes of this list");

export function summary({ indexId, label, meta, sizeBytes }: PublishedIndex): IndexSummary {
  return {
    index_id: indexId,
    index_type: meta.index_type,
    label,
    descriptor_version: meta.descriptor_version,
    dim: meta.dim,
    engine: meta.engine.name,
    size: sizeBytes,
    count: meta.count,
    revision: meta.revision,
    mode: meta.build.mode,
    base_index_id: meta.base_index_id ?? null,
    removed_since_rebuild: meta.removed_since_rebuild,
    create_time: meta.create_time,
    phases_ms: meta.build.phases,
  };
}

/** Everything that is published (of one label), by label, the newest first within each. */
export async function listedOf(
  storage: IndexStorage,
  label: string | undefined,
  signal: AbortSignal,
): Promise<PublishedIndex[]> {
  const listing = await storage.list({ signal, ...(label === undefined ? {} : { label }) });
  return listing.indexes.toSorted((a, b) => compareKeys(keyOf(a), keyOf(b)));
}

const keySchema = z.tuple([z.string(), z.int(), z.int(), z.string()]);
/** Label, revision, milliseconds of create_time, index id. */
type IndexKey = z.infer<typeof keySchema>;

const keyOf = ({ label, indexId, meta }: PublishedIndex): IndexKey => [
  label,
  meta.revision,
  Date.parse(meta.create_time),
  indexId,
];

const compareText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** By label, then the newest first: the order of the storage's listing, whatever appears in between. */
function compareKeys(a: IndexKey, b: IndexKey): number {
  return compareText(a[0], b[0]) || b[1] - a[1] || b[2] - a[2] || compareText(b[3], a[3]);
}

const pageShape = {
  limit: limitQuery({
    most: managerLimits.maxIndexesPerAnswer,
    byDefault: 100,
    what: "indexes in one answer",
  }),
  cursor: cursorQuery,
};

function answer(
  found: readonly PublishedIndex[],
  { limit, cursor }: { limit: number; cursor?: string | undefined },
) {
  const { items, nextCursor } = pageOf(found, { limit, cursor }, { keyOf, compare: compareKeys, keySchema });
  return { count: found.length, indexes: items.map(summary), next_cursor: nextCursor };
}

/** Published indexes, read from the storage: the only source of what exists. */
export const indexRoutes =
  (deps: IndexApiDeps): FastifyPluginAsyncZod =>
  async (app) => {
    app.get(
      "/indexes",
      {
        schema: {
          operationId: "getIndexes",
          description: "Published indexes by list, of one list the newest first.",
          tags: indexTags,
          querystring: z.strictObject({
            label: labelQuery,
            descriptor_version: numberQuery(0, Number.MAX_SAFE_INTEGER)
              .optional()
              .describe("Only indexes of this descriptor version"),
            ...pageShape,
          }),
          response: { 200: json("Indexes", indexes), ...errorResponses("bad_input", "storage_unavailable") },
        },
      },
      async (request) => {
        const { label, descriptor_version: version } = request.query;
        const found = await listedOf(deps.storage, label, request.signal);
        const wanted = found.filter(
          ({ meta }) => version === undefined || meta.descriptor_version === version,
        );
        return answer(wanted, request.query);
      },
    );

    app.get(
      "/indexes/relevant",
      {
        schema: {
          operationId: "getRelevantIndexes",
          description:
            "The index of each list that matchers serve: the newest one of the served descriptor version that fits its list. Lists that are gone have none.",
          tags: indexTags,
          querystring: z.strictObject({
            label: labelQuery,
            ...pageShape,
            limit: limitQuery({
              most: managerLimits.maxIndexesPerAnswer,
              byDefault: managerLimits.maxIndexesPerAnswer,
              what: "indexes in one answer",
            }),
          }),
          response: {
            200: json("Indexes", indexes),
            ...errorResponses("bad_input", "postgres_unavailable", "storage_unavailable"),
          },
        },
      },
      async (request) => {
        const found = await listedOf(deps.storage, request.query.label, request.signal);
        const byLabel = Map.groupBy(found, ({ label }) => label);
        // After a restored backup the newest index may not fit its list any more: matchers serve an older one then.
        const states = await deps.db.listStates({ listIds: [...byLabel.keys()], signal: request.signal });
        const lists = new Map(states.map((list) => [list.listId, list]));
        const relevant = [...byLabel].flatMap(([label, ofLabel]) => {
          const list = lists.get(label);
          if (!list) return [];
          const newest = newestOf({ indexes: ofLabel, refused: [] }, label, deps.descriptorVersion, list);
          const fits = newest?.meta.history_id === list.historyId && newest.meta.revision <= list.revision;
          return fits ? [newest] : [];
        });
        return answer(relevant, request.query);
      },
    );
  };
