import fc from "fast-check";
import { type SchemaContext, valuesOf } from "./arbitraries.ts";
import type { ApiDocument, Operation, Parameter } from "./document.ts";
import { domainOf, withRulesKept } from "./domains.ts";
import type { Plan, PlanBody, Template, Text } from "./plan.ts";

/** Header that every operation takes, documented or not; what is not well-formed is replaced, never refused. */
export const requestIdHeader = "Luna-Request-Id";
export const wellFormedRequestId = /^\d{1,12},[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Where the document names it, it is no parameter like others: no value of it is refused. */
export const isRequestId = (parameter: Parameter): boolean =>
  parameter.in === "header" && parameter.name.toLowerCase() === requestIdHeader.toLowerCase();

const requestIds: fc.Arbitrary<string | undefined> = fc.oneof(
  { weight: 4, arbitrary: fc.constant(undefined) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.integer({ min: 0, max: 999_999_999_999 }), fc.uuid())
      .map(([s, id]) => `${s},${id}`),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      "x",
      "1,2",
      "-1,5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11",
      "1700000000,5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c1",
      "1700000000;5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11",
      "1700000000,5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11,1",
      "\u00ff\u00fe",
      "1".repeat(3_000),
      "{{7*7}}",
    ),
  },
);

/** Documented values of one parameter, as texts. */
export function textsOf(
  operation: Operation,
  parameter: Parameter,
  context: SchemaContext,
): fc.Arbitrary<Text> {
  const domain = domainOf(operation, parameter);
  const { schema } = parameter;
  const isFree = schema.type === "string" && schema.pattern === undefined && schema.enum === undefined;
  if (domain && isFree) return domain.texts;
  const plain = valuesOf(schema, context).map((value): Text => [String(value)]);
  // A long pattern (a hundred ids) costs more than it tells.
  const isCheap = typeof schema.pattern !== "string" || schema.pattern.length < 400;
  if (!domain) return plain;
  return isCheap
    ? fc.oneof({ weight: 5, arbitrary: domain.texts }, { weight: 1, arbitrary: plain })
    : domain.texts;
}

export function contextOf(document: ApiDocument, operation: Operation): SchemaContext {
  return {
    schemas: document.schemas,
    named(property, schema) {
      const domain = domainOf(operation, { name: property, in: "query", required: false, schema });
      if (schema.type !== "string" || !domain) return undefined;
      // In a body a text is one value: of a domain's pieces the only one.
      return domain.texts.map((text): Template => text[0] ?? "");
    },
  };
}

/** Requests as documented: path, some of the optional parameters, body. */
export function validPlans(document: ApiDocument, operation: Operation): fc.Arbitrary<Plan> {
  const context = contextOf(document, operation);
  const of = (place: Parameter["in"]) =>
    operation.parameters.filter((one) => one.in === place && !isRequestId(one));
  const optional = (parameter: Parameter) => {
    const texts = textsOf(operation, parameter, context);
    // Of many filters a few at a time: all of them together hit nothing.
    const absent = { weight: of("query").length > 4 ? 3 : 1, arbitrary: fc.constant(undefined) };
    return parameter.required ? texts : fc.oneof(absent, { weight: 1, arbitrary: texts });
  };
  const model = (parameters: readonly Parameter[]) =>
    fc.record(Object.fromEntries(parameters.map((one) => [one.name, optional(one)])));
  return fc
    .record({
      pathValues: model(of("path")),
      query: model(of("query")),
      headers: model(of("header")),
      body: operation.body ? bodiesOf(operation.body, context) : fc.constant(undefined),
      requestId: requestIds,
      // A service that asks for no authorization takes no offence at one.
      strayToken: operation.secured ? fc.constant(false) : fc.boolean(),
    })
    .map(({ pathValues, query, headers, body, requestId, strayToken }): Plan => {
      const kept = withRulesKept(operation, present(query));
      return {
        operation: operation.id,
        kind: "valid",
        method: operation.method,
        path: operation.path,
        pathValues: Object.fromEntries(present(pathValues).map(({ name, value }) => [name, value])),
        query: kept,
        headers: present(headers),
        authorization: operation.secured
          ? { kind: "token" }
          : strayToken
            ? { kind: "raw", value: "Bearer of nothing in particular" }
            : { kind: "none" },
        requestId,
        body,
        expect: { outcome: "accepted" },
        changesNothing: operation.method === "GET" || isDryRun(kept),
      };
    });
}

export function isDryRun(query: Plan["query"]): boolean {
  return query.some((one) => one.name === "dry_run" && one.value.join("") === "true");
}

function present(values: Readonly<Record<string, Text | undefined>>): { name: string; value: Text }[] {
  return Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [{ name, value }]));
}

function bodiesOf(
  body: NonNullable<Operation["body"]>,
  context: SchemaContext,
): fc.Arbitrary<PlanBody | undefined> {
  const types = fc.constantFrom("application/json", "application/json; charset=utf-8");
  const bodies = fc
    .tuple(valuesOf(body.schema, context), types)
    .map(([value, contentType]): PlanBody => ({ kind: "json", value, contentType }));
  return body.required ? bodies : fc.option(bodies, { nil: undefined });
}

/** The dry runs among them, of an operation that has such. */
export function dryRuns(document: ApiDocument, operation: Operation): fc.Arbitrary<Plan> | undefined {
  if (!operation.parameters.some((one) => one.in === "query" && one.name === "dry_run")) return undefined;
  return validPlans(document, operation).map((plan) => ({
    ...plan,
    query: [...plan.query.filter((one) => one.name !== "dry_run"), { name: "dry_run", value: ["true"] }],
    changesNothing: true,
  }));
}
