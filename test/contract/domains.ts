import { taskStatusSchema } from "@lim/contracts";
import fc from "fast-check";
import { dateTimes } from "./arbitraries.ts";
import type { Operation, Parameter } from "./document.ts";
import { type PoolName, Ref, type Text } from "./plan.ts";

/**
 * What the document says in words only: values that hit something (ids of what there is), and rules between
 * parameters. By name, so that a parameter means the same in every operation.
 */
export interface Domain {
  texts: fc.Arbitrary<Text>;
  /** Texts that its schema lets through and that are wrong all the same. */
  wrong?: fc.Arbitrary<Text>;
}

const picks = fc.nat(10_000);
const refs = (pool: PoolName): fc.Arbitrary<Ref> => picks.map((pick) => new Ref(pool, pick));
/** UUIDs are the same in upper and in lower case. */
const ids = (pool: PoolName): fc.Arbitrary<Text> =>
  fc.oneof(
    { weight: 8, arbitrary: refs(pool).map((ref): Text => [ref]) },
    { weight: 1, arbitrary: picks.map((pick): Text => [new Ref(pool, pick, true)]) },
    { weight: 1, arbitrary: fc.uuid().map((id): Text => [id]) },
  );

function listed(items: fc.Arbitrary<Text>, maxLength: number): fc.Arbitrary<Text> {
  return fc
    .array(items, { minLength: 1, maxLength })
    .map((texts) => texts.flatMap((text, i) => (i === 0 ? text : [",", ...text])));
}

const startMs = Date.now();

/** Around the run, where its tasks are, and anywhere. */
const times: fc.Arbitrary<Text> = fc.oneof(
  fc.integer({ min: -60_000, max: 300_000 }).map((ms): Text => [new Date(startMs + ms).toISOString()]),
  dateTimes.map((time): Text => [time]),
  dateTimes.map((time): Text => [time.replace(/\.\d+Z$/, "+05:30")]),
  dateTimes.map((time): Text => [time.replace(/\.\d+Z$/, "Z")]),
);

/** Operations whose cursors are of another kind, one of each. */
const cursorsElsewhere = ["getTasks", "getQueue", "getIndexes", "getPlan"];

const wrongCursors = (operation: Operation): fc.Arbitrary<Text> =>
  fc.oneof(
    fc
      .constantFrom(
        ...cursorsElsewhere.filter((id) => !operation.id.includes("Indexes") || id !== "getIndexes"),
      )
      .filter((id) => id !== operation.id)
      .chain((id) => refs(`cursors of ${id}`).map((ref): Text => [ref])),
    fc
      .constantFrom("0", "null", "x", "%", "e30", "W10", "bnVsbA", "eyJhIjoxfQ", "../../x", "-1", "WzEsMl0=")
      .map((text): Text => [text]),
    fc.base64String({ minLength: 4, maxLength: 60 }).map((text): Text => [text]),
    // What was given out, with something more.
    fc.string({ minLength: 1, maxLength: 8 }).map((text): Text => [`${text}!`]),
  );

const byName: Readonly<Record<string, (operation: Operation) => Domain>> = {
  task_id: () => ({ texts: ids("tasks") }),
  index_id: () => ({ texts: ids("indexes") }),
  list_id: () => ({ texts: ids("lists") }),
  label: () => ({ texts: ids("lists") }),
  task_ids: () => ({ texts: listed(ids("tasks"), 12) }),
  statuses: () => ({
    texts: listed(
      fc.constantFrom(...taskStatusSchema.options).map((one): Text => [one]),
      5,
    ),
  }),
  indexer: () => ({
    texts: fc
      .oneof(
        refs("origins"),
        fc.webUrl().map((url) => new URL(url).origin),
      )
      .map((one) => [one]),
  }),
  "idempotency-key": () => ({
    texts: fc.oneof(
      refs("keys").map((ref): Text => [ref]),
      fc.uuid().map((key): Text => [key]),
    ),
  }),
  cursor: (operation) => ({
    texts: refs(`cursors of ${operation.id}`).map((ref): Text => [ref]),
    wrong: wrongCursors(operation),
  }),
};
for (const name of ["create", "start", "end"])
  for (const bound of ["gte", "lt"])
    Object.assign(byName, { [`${name}_time__${bound}`]: () => ({ texts: times }) });

export function domainOf(operation: Operation, parameter: Parameter): Domain | undefined {
  const name = parameter.in === "header" ? parameter.name.toLowerCase() : parameter.name;
  return Object.hasOwn(byName, name) ? byName[name]?.(operation) : undefined;
}

type Query = readonly { name: string; value: Text }[];

/** Filters of which an operation needs one, because without any it would remove everything. */
const needsFilter: Readonly<Record<string, { unless: readonly string[] }>> = {
  "DELETE /1/tasks": { unless: ["limit", "dry_run", "cursor"] },
};

export function filtersNeeded(operation: Operation): readonly string[] {
  const rule = needsFilter[`${operation.method} ${operation.path}`];
  if (!rule) return [];
  return operation.parameters
    .filter((parameter) => parameter.in === "query" && !rule.unless.includes(parameter.name))
    .map((parameter) => parameter.name);
}

/** Pairs of `<name>__gte` and `<name>__lt`: the first must come before the second. */
export function rangesOf(operation: Operation): { from: string; to: string }[] {
  const names = new Set(operation.parameters.map((parameter) => parameter.name));
  return [...names].flatMap((from) => {
    const to = from.replace(/__gte$/, "__lt");
    return to !== from && names.has(to) ? [{ from, to }] : [];
  });
}

/** Keeps the rules between parameters: what would break one is left out, what is missing is put in. */
export function withRulesKept(operation: Operation, query: Query): Query {
  let kept = query;
  for (const { from, to } of rangesOf(operation)) {
    const at = (name: string) => kept.find((one) => one.name === name)?.value.join("");
    const [first, second] = [at(from), at(to)];
    if (first !== undefined && second !== undefined && !(Date.parse(first) < Date.parse(second)))
      kept = kept.filter((one) => one.name !== to);
  }
  const needed = filtersNeeded(operation);
  if (needed.length > 0 && !kept.some((one) => needed.includes(one.name)))
    kept = [...kept, { name: "statuses", value: ["error"] }];
  return kept;
}
