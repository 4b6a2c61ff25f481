import { z } from "zod";
import { uuidSchema } from "./ids.ts";
import { limits } from "./limits.ts";

/** `hnswlib`: the library of that name by its native Node module. `hnsw`: `packages/hnsw`, in WebAssembly. */
export const engineNames = ["hnswlib", "hnsw"] as const;
export const engineNameSchema = z.enum(engineNames);
export type EngineName = z.infer<typeof engineNameSchema>;

export const metricSchema = z.literal("ip");
export const buildModeSchema = z.enum(["rebuild", "update"]);
export type BuildMode = z.infer<typeof buildModeSchema>;

export const skippedSchema = z.strictObject({
  wrong_length: z.int().nonnegative(),
  not_finite: z.int().nonnegative(),
  zero_norm: z.int().nonnegative(),
});
/** Descriptors of a list that were left out of its index, by reason. */
export type SkippedCounts = z.infer<typeof skippedSchema>;

export const buildParamsSchema = z.strictObject({
  m: z.int().min(2).max(100),
  ef_construction: z.int().min(10).max(2000),
});

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);
const fileEntrySchema = z.strictObject({ size: z.int().nonnegative(), sha256: sha256Schema });

export const indexMetaFormatVersion = 1;

/** `meta.json` of a published index, format version 1. It is written last; its presence makes the index whole. */
export const indexMetaSchema = z.strictObject({
  format_version: z.literal(indexMetaFormatVersion),
  index_id: uuidSchema,
  index_type: z.literal("list"),
  label: uuidSchema,
  history_id: uuidSchema,
  descriptor_version: z.int().nonnegative(),
  dim: z.int().min(limits.minDim).max(limits.maxDim),
  metric: metricSchema,
  engine: z.strictObject({ name: engineNameSchema, version: z.string().min(1) }),
  params: buildParamsSchema,
  /** Faces that can be found. */
  count: z.int().nonnegative(),
  /** Positions in the engine and in ids.dat: count plus removed ones. */
  slots: z.int().nonnegative(),
  /** Revision of the list that the content equals. */
  revision: z.int().nonnegative(),
  base_index_id: uuidSchema.optional(),
  /** Unlinks and replacements that the graph absorbed since it was last built from nothing. */
  removed_since_rebuild: z.int().nonnegative(),
  create_time: z.iso.datetime(),
  build: z.strictObject({
    mode: buildModeSchema,
    skipped: skippedSchema,
    /** Milliseconds of each phase. */
    phases: z.record(z.string(), z.number().nonnegative()),
  }),
  recall: z.strictObject({ k: z.int().positive(), sampled: z.number().min(0).max(1) }),
  files: z.strictObject({
    "index.dat": fileEntrySchema,
    "ids.dat": fileEntrySchema,
    /** Vectors in full precision, of engines whose index.dat does not hold them. */
    "vectors.dat": fileEntrySchema.optional(),
  }),
  /**
   * Of the JSON text of all other fields, in the file's order and without white space: a flipped digit of the revision
   * would pass for another revision. Absent in the first files of this format.
   */
  meta_sha256: sha256Schema.optional(),
});
export type IndexMeta = z.infer<typeof indexMetaSchema>;
