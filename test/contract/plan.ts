import type { Json } from "./document.ts";

/** Ids and other values that only the running service knows; a plan names them by pool, and gets them when it is sent. */
export type PoolName = "tasks" | "lists" | "indexes" | "origins" | "keys" | `cursors of ${string}`;

/** A value of a pool: the `pick`-th, round and round. */
export class Ref {
  readonly pool: PoolName;
  readonly pick: number;
  readonly upperCase: boolean;

  constructor(pool: PoolName, pick: number, upperCase = false) {
    this.pool = pool;
    this.pick = pick;
    this.upperCase = upperCase;
  }
}

/** Pieces of one text, joined when it is sent. */
export type Text = readonly (string | Ref)[];

export type Template = Json | Ref | readonly Template[] | { readonly [key: string]: Template };

export type PlanBody =
  | { kind: "json"; value: Template; contentType: string }
  /** Bytes as they are; without a content type none is sent. */
  | { kind: "bytes"; bytes: Uint8Array; contentType: string | undefined };

export type Expectation =
  /** Documented, so accepted: no refusal of the input. */
  | { outcome: "accepted" }
  /** One of these statuses; those that belong to no operation need not be declared for it. */
  | { outcome: "refused"; statuses: readonly number[]; declared: boolean }
  /** HTTP leaves it open: any declared status, or one of these. */
  | { outcome: "either"; statuses: readonly number[] };

/** One request, whole but for the values of pools. */
export interface Plan {
  /** Id of the operation it is made for. */
  operation: string;
  /** What was done to a valid request, "valid" where nothing. */
  kind: string;
  method: string;
  /** With parameters in braces. */
  path: string;
  pathValues: Readonly<Record<string, Text>>;
  /** Sent instead of the path, as it is (latin1). */
  rawPath?: string;
  query: readonly { name: string; value: Text }[];
  /** Appended to the query as it is (latin1). */
  rawQuery?: string;
  headers: readonly { name: string; value: Text }[];
  authorization: { kind: "token" } | { kind: "none" } | { kind: "raw"; value: string };
  requestId: string | undefined;
  body: PlanBody | undefined;
  expect: Expectation;
  /** Answered as expected, it leaves tasks, queue and indexes as they are. */
  changesNothing: boolean;
}

export type Pools = ReadonlyMap<PoolName, readonly string[]>;

/** Undefined where a pool that it needs is empty. */
export function fillText(text: Text, pools: Pools): string | undefined {
  let filled = "";
  for (const piece of text) {
    const part = piece instanceof Ref ? poolValue(piece, pools) : piece;
    if (part === undefined) return undefined;
    filled += part;
  }
  return filled;
}

export function poolValue(ref: Ref, pools: Pools): string | undefined {
  const pool = pools.get(ref.pool) ?? [];
  const value = pool[ref.pick % pool.length];
  return ref.upperCase ? value?.toUpperCase() : value;
}

const noId = "00000000-0000-4000-8000-000000000000";

/** A body's value with those of the pools in it; an id that no pool has is one that nothing has. */
export function fillTemplate(template: Template, pools: Pools): Json {
  if (template instanceof Ref) return poolValue(template, pools) ?? noId;
  if (Array.isArray(template)) return template.map((item) => fillTemplate(item, pools));
  if (typeof template !== "object" || template === null) return template as Json;
  // No prototype: a body may have a property of that name.
  const filled: { [key: string]: Json } = Object.create(null);
  for (const [key, value] of Object.entries(template)) filled[key] = fillTemplate(value, pools);
  return filled;
}
