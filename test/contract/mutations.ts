import fc from "fast-check";
import { type ApiDocument, isObject, type JsonObject, type Operation } from "./document.ts";
import { filtersNeeded, rangesOf } from "./domains.ts";
import type { Plan, Template, Text } from "./plan.ts";
import { contextOf, isRequestId, textsOf, validPlans } from "./requests.ts";
import type { Validators } from "./schemas.ts";
import { wrongTexts } from "./wrong-texts.ts";

export interface PlanKind {
  name: string;
  plans: fc.Arbitrary<Plan>;
}

const refusedAs = (...statuses: number[]): Plan["expect"] => ({
  outcome: "refused",
  statuses,
  declared: true,
});

/** Requests with one fault each, and the status that the fault must get. */
export function faultyPlans(document: ApiDocument, operation: Operation, validators: Validators): PlanKind[] {
  const valid = validPlans(document, operation);
  const kinds: PlanKind[] = [];
  const add = <T>(name: string, faults: fc.Arbitrary<T>, apply: (plan: Plan, fault: T) => Plan) =>
    kinds.push({
      name,
      plans: fc.tuple(valid, faults).map(([plan, fault]) => ({
        ...apply({ ...plan, changesNothing: true, expect: refusedAs(400) }, fault),
        kind: name,
      })),
    });
  addParameterFaults(document, operation, validators, add);
  if (operation.secured) addAuthorizationFaults(add);
  if (operation.body) addBodyFaults(document, operation.body.schema, validators, add);
  return kinds;
}

type Add = <T>(name: string, faults: fc.Arbitrary<T>, apply: (plan: Plan, fault: T) => Plan) => void;

const replaced = (entries: Plan["query"], name: string, value: Text): Plan["query"] => [
  ...entries.filter((one) => one.name !== name),
  { name, value },
];

function addParameterFaults(
  document: ApiDocument,
  operation: Operation,
  validators: Validators,
  add: Add,
): void {
  // The service's own reads, unversioned, look at no parameter, like most targets of probes and scrapers.
  const looksAtQuery = /^\/\d+\//.test(operation.path);
  const names = [
    "x",
    "limits",
    "Limit",
    "offset",
    "limit[]",
    "task_id[$ne]",
    "constructor",
    "__proto__",
    "toString",
    "é",
    "",
  ];
  const unknown = names.filter((name) => !operation.parameters.some((one) => one.name === name));
  if (looksAtQuery)
    add(
      "unknown parameter",
      fc.tuple(fc.constantFrom(...unknown), fc.constantFrom("", "1", "a b&c=d")),
      (plan, [name, value]) => ({
        ...plan,
        query: [...plan.query, { name, value: [value] }],
      }),
    );
  const context = contextOf(document, operation);
  for (const parameter of operation.parameters) {
    const { name } = parameter;
    if (isRequestId(parameter)) continue;
    const wrong = wrongTexts(operation, parameter, validators);
    if (wrong)
      add(`wrong ${name}`, wrong, (plan, value) => {
        if (parameter.in === "path") return { ...plan, pathValues: { ...plan.pathValues, [name]: value } };
        if (parameter.in === "header") return { ...plan, headers: replaced(plan.headers, name, value) };
        return { ...plan, query: replaced(plan.query, name, value) };
      });
    if (parameter.in === "query")
      add(`${name} twice`, textsOf(operation, parameter, context), (plan, value) => {
        const query = replaced(plan.query, name, value);
        return { ...plan, query: [...query, { name, value }] };
      });
    if (parameter.required && parameter.in === "query")
      add(`no ${name}`, fc.constant(0), (plan) => ({
        ...plan,
        query: plan.query.filter((one) => one.name !== name),
      }));
  }
  for (const { from, to } of rangesOf(operation))
    add(`${from} after ${to}`, fc.integer({ min: 0, max: 1_000_000 }), (plan, ms) => {
      const start = Date.parse("2026-11-21T10:00:00Z");
      const query = replaced(plan.query, from, [new Date(start + ms).toISOString()]);
      return { ...plan, query: replaced(query, to, [new Date(start).toISOString()]) };
    });
  const needed = filtersNeeded(operation);
  if (needed.length > 0)
    add("no filter", fc.constant(0), (plan) => ({
      ...plan,
      query: plan.query.filter((one) => !needed.includes(one.name)),
    }));
}

function addAuthorizationFaults(add: Add): void {
  const values = [
    "Bearer wrong-token-wrong-token",
    "Bearer",
    "Bearer ",
    "Basic dXNlcjpwYXNz",
    "Bearer \u00ff\u00fe",
    "null",
    `Bearer ${"a".repeat(4_000)}`,
    "Token x, Bearer y",
  ];
  const unauthorized = { expect: refusedAs(401) };
  add("no authorization", fc.constant(0), (plan) => ({
    ...plan,
    ...unauthorized,
    authorization: { kind: "none" },
  }));
  add("wrong authorization", fc.constantFrom(...values), (plan, value) => ({
    ...plan,
    ...unauthorized,
    authorization: { kind: "raw", value },
  }));
}

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const json = "application/json";
/** Above the limit that a service of small bodies has. */
const hugeBytes = [70_000, 1024 * 1024];
const depth = 10_000;

function addBodyFaults(
  document: ApiDocument,
  schemaOrRef: JsonObject,
  validators: Validators,
  add: Add,
): void {
  const target =
    typeof schemaOrRef.$ref === "string"
      ? document.schemas[schemaOrRef.$ref.replace("#/components/schemas/", "")]
      : schemaOrRef;
  const schema = isObject(target) ? target : {};
  const withBytes = (plan: Plan, bytes: Uint8Array): Plan => ({
    ...plan,
    body: { kind: "bytes", bytes, contentType: json },
  });
  const withValue = (plan: Plan, change: (value: { [key: string]: Template }) => Template): Plan =>
    plan.body?.kind === "json" && isObject(plan.body.value as JsonObject)
      ? {
          ...plan,
          body: { ...plan.body, value: change({ ...(plan.body.value as { [key: string]: Template }) }) },
        }
      : plan;
  const malformed = [
    "{",
    "}",
    '{"list_id":',
    "{'a':1}",
    '{"a":1,}',
    "NaN",
    "undefined",
    '{"a":1}{"b":2}',
    "\ufeff{",
    '"\u0001"',
    "[1,",
    "\u0000",
    "<x/>",
  ];
  add("malformed JSON", fc.constantFrom(...malformed), (plan, text) => withBytes(plan, bytesOf(text)));
  add("bytes that are no text", fc.uint8Array({ minLength: 1, maxLength: 64 }), (plan, bytes) =>
    withBytes(plan, Uint8Array.from([0xff, 0xfe, ...bytes])),
  );
  add("empty body", fc.constantFrom("", " ", "\n"), (plan, text) => withBytes(plan, bytesOf(text)));
  const values: Template[] = [null, true, 0, -1, 1.5, 1e308, "", "x", [], ["x"], {}, { a: 1 }];
  add(
    "wrong JSON",
    fc.constantFrom(...values.filter((value) => validators.requestFault(schema, value))),
    (plan, value) => ({
      ...plan,
      body: { kind: "json", value, contentType: json },
    }),
  );
  const nested = [
    "[".repeat(depth) + "]".repeat(depth),
    `{"list_id":${'{"a":'.repeat(depth / 5)}1${"}".repeat(depth / 5)}}`,
  ];
  add("deep nesting", fc.constantFrom(...nested), (plan, text) => withBytes(plan, bytesOf(text)));
  add("huge body", fc.constantFrom(...hugeBytes), (plan, size) => ({
    ...withBytes(plan, bytesOf(JSON.stringify({ list_id: "x".repeat(size) }))),
    expect: refusedAs(413),
  }));
  const types = [
    "text/plain",
    "application/xml",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "application/jsonx",
    "json",
    "/",
    "application/json-patch+json",
    undefined,
  ];
  const plain = bytesOf('{"list_id":"5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11"}');
  add("wrong content type", fc.constantFrom(...types), (plan, contentType) => ({
    ...plan,
    body: { kind: "bytes", bytes: plain, contentType },
    expect: refusedAs(415),
  }));
  const dangerous = [
    '"__proto__":{"mode":"update"}',
    '"constructor":{"prototype":{"mode":"update"}}',
    '"__proto__":null',
  ];
  add("prototype in the body", fc.constantFrom(...dangerous), (plan, text) =>
    withBytes(plan, bytesOf(`{"list_id":"5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11",${text}}`)),
  );
  if (schema.additionalProperties === false)
    add(
      "unknown property",
      fc.tuple(
        fc.constantFrom("x", "List_id", "task_id", "", "list_id "),
        fc.constantFrom<Template>(1, null, "y"),
      ),
      (plan, [name, value]) => withValue(plan, (body) => ({ ...body, [name]: value })),
    );
  addPropertyFaults(schema, validators, add, withValue);
}

function addPropertyFaults(
  schema: JsonObject,
  validators: Validators,
  add: Add,
  withValue: (plan: Plan, change: (value: { [key: string]: Template }) => Template) => Plan,
): void {
  const required = Array.isArray(schema.required) ? schema.required.map(String) : [];
  for (const name of required)
    add(`no ${name}`, fc.constant(0), (plan) =>
      withValue(plan, (body) => Object.fromEntries(Object.entries(body).filter(([key]) => key !== name))),
    );
  const candidates: Template[] = [
    null,
    true,
    false,
    0,
    -1,
    1.5,
    2 ** 53,
    "",
    "x",
    "null",
    " ",
    "\u0000",
    "😀",
    "REBUILD",
    "maximum",
    [],
    ["rebuild"],
    {},
    { toString: "x" },
    "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c1",
  ];
  for (const [name, property] of Object.entries(isObject(schema.properties) ? schema.properties : {})) {
    if (!isObject(property)) continue;
    const wrong = candidates.filter((value) => validators.requestFault(property, value) !== undefined);
    if (wrong.length > 0)
      add(`wrong ${name}`, fc.constantFrom(...wrong), (plan, value) =>
        withValue(plan, (body) => ({ ...body, [name]: value })),
      );
  }
}
