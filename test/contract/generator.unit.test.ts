import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { valueOfText, valuesOf } from "./arbitraries.ts";
import { createCoverage } from "./coverage.ts";
import { type JsonObject, loadDocument, type Operation, readDocument } from "./document.ts";
import { filtersNeeded, rangesOf } from "./domains.ts";
import { noOperation } from "./http-faults.ts";
import { createDeck, type Round } from "./kinds.ts";
import { faultyPlans } from "./mutations.ts";
import { fillTemplate, fillText, type Plan, type PoolName, type Pools, Ref } from "./plan.ts";
import { curlOf, render } from "./render.ts";
import { validPlans } from "./requests.ts";
import { createValidators } from "./schemas.ts";

const document = loadDocument();
const validators = createValidators(document);
const deck = createDeck(document, validators);
const someId = "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11";
const pools: Pools = new Map<PoolName, string[]>([
  ["tasks", [someId]],
  ["lists", [someId]],
  ["indexes", [someId]],
  ["origins", ["http://127.0.0.1:5180"]],
  ["keys", ["a-key"]],
]);
const runs = 50;
const sample = (plans: fc.Arbitrary<Plan>) => fc.sample(plans, { seed: 1, numRuns: runs });

/** Why the request, as it is sent, is none that the document allows. */
function faultsOf(operation: Operation, plan: Plan): string[] {
  const faults: string[] = [];
  const values = [
    ...plan.query,
    ...plan.headers,
    ...Object.entries(plan.pathValues).map(([name, value]) => ({ name, value })),
  ];
  for (const { name, value } of values) {
    const parameter = operation.parameters.find((one) => one.name === name);
    const text = fillText(value, pools);
    if (!parameter) faults.push(`${name} is undeclared`);
    else if (text !== undefined) {
      const fault = validators.requestFault(parameter.schema, valueOfText(parameter.schema, text));
      if (fault !== undefined) faults.push(`${name} ${text}: ${fault}`);
    }
  }
  for (const { name, required } of operation.parameters)
    if (required && !values.some((one) => one.name === name)) faults.push(`${name} is missing`);
  if (operation.body?.required === true && !plan.body) faults.push("the body is missing");
  if (operation.body && plan.body?.kind === "json") {
    const fault = validators.requestFault(
      operation.body.schema,
      JSON.parse(JSON.stringify(fillTemplate(plan.body.value, pools))),
    );
    if (fault !== undefined) faults.push(`body: ${fault}`);
  }
  return faults;
}

describe.each(document.operations.map((operation) => [operation.id, operation] as const))(
  "%s",
  (_, operation) => {
    it("gets valid requests that the document allows, rules in words included", () => {
      const needed = filtersNeeded(operation);
      for (const plan of sample(validPlans(document, operation))) {
        expect(faultsOf(operation, plan)).toEqual([]);
        const valueOfName = (name: string) => plan.query.find((one) => one.name === name)?.value.join("");
        if (needed.length > 0) expect(plan.query.some((one) => needed.includes(one.name))).toBe(true);
        for (const { from, to } of rangesOf(operation)) {
          const [start, end] = [valueOfName(from), valueOfName(to)];
          if (start !== undefined && end !== undefined)
            expect(Date.parse(start)).toBeLessThan(Date.parse(end));
        }
      }
    });

    it("gets every parameter some time", () => {
      const used = new Set(
        sample(validPlans(document, operation)).flatMap((plan) => [
          ...[...plan.query, ...plan.headers].map((one) => one.name),
          ...Object.keys(plan.pathValues),
        ]),
      );
      const declared = operation.parameters
        .map((one) => one.name)
        .filter((name) => name !== "Luna-Request-Id");
      expect(declared.filter((name) => !used.has(name))).toEqual([]);
    });

    it("gets faulty requests that are refused by the document where it can say so", () => {
      for (const { name, plans } of faultyPlans(document, operation, validators)) {
        const isSaid = /^wrong (?!authorization|content|cursor|JSON)/.test(name);
        for (const plan of sample(plans)) {
          expect(plan.kind).toBe(name);
          expect(plan.expect.outcome).toBe("refused");
          expect(plan.changesNothing).toBe(true);
          if (isSaid) expect(faultsOf(operation, plan), name).not.toEqual([]);
        }
      }
    });
  },
);

describe("the sequence of a seed", () => {
  const drawn = (round: Round, seed: number) =>
    Array.from({ length: 200 }, (_, index) => deck.draw(round, seed, index).plan);

  it("is the same each time, and another one for another seed", () => {
    expect(drawn("still", 7)).toEqual(drawn("still", 7));
    expect(drawn("still", 8)).not.toEqual(drawn("still", 7));
  });

  it.each(["still", "moving"] as const)("reaches every operation in %s rounds", (round) => {
    const reached = new Set(drawn(round, 3).map((plan) => plan.operation));
    expect([...reached].toSorted()).toEqual(
      [...document.operations.map((one) => one.id), noOperation].toSorted(),
    );
  });

  it("I11: has nothing in a still round that may change anything when it is answered as expected", () => {
    for (let seed = 1; seed <= 10; seed++)
      for (const plan of drawn("still", seed)) {
        const isRead = plan.method === "GET" || plan.method === "HEAD";
        expect(plan.changesNothing || isRead, `${plan.operation} ${plan.kind}`).toBe(true);
      }
  });

  it("can be made again by fast-check, and shrunk", () => {
    const { plan, plans, seed } = deck.draw("moving", 5, 11);
    let first: Plan | undefined;
    const result = fc.check(
      fc.property(plans, (made) => {
        first ??= made;
        return false;
      }),
      { seed, numRuns: 1 },
    );
    expect(first).toEqual(plan);
    expect(result.failed).toBe(true);
  });
});

describe("schemas", () => {
  it.each<[string, JsonObject]>([
    ["a pattern", { type: "string", pattern: "^a{2,5}b$" }],
    ["a range", { type: "integer", minimum: 3, maximum: 5 }],
    ["choices", { anyOf: [{ type: "null" }, { enum: ["a", "b"] }] }],
    [
      "an object",
      {
        type: "object",
        properties: { a: { type: "boolean" }, b: { const: 1 } },
        required: ["a"],
        additionalProperties: false,
      },
    ],
    ["an array", { type: "array", items: { type: "number", exclusiveMinimum: 0 }, minItems: 1, maxItems: 2 }],
    ["a length", { type: "string", minLength: 2, maxLength: 3 }],
    ["a time", { type: "string", format: "date-time" }],
  ])("give values that match them: %s", (_, schema) => {
    for (const value of fc.sample(valuesOf(schema, { schemas: {} }), { seed: 1, numRuns: runs }))
      expect(validators.requestFault(schema, value)).toBeUndefined();
  });

  it("are refused where they say something that the generator does not know", () => {
    expect(() => valuesOf({ type: "integer", multipleOf: 3 }, { schemas: {} })).toThrow("multipleOf");
    expect(() => valuesOf({ type: "string", format: "ipv6" }, { schemas: {} })).toThrow("ipv6");
  });
});

describe("a document", () => {
  it.each([
    [
      "an operation without an id",
      "paths: { /a: { get: { responses: { '200': { description: x } } } } }",
      "operationId",
    ],
    [
      "a path parameter that is not declared",
      "paths: { '/a/{b}': { get: { operationId: a, responses: { '200': {} } } } }",
      "b",
    ],
    ["a status that is a range", "paths: { /a: { get: { operationId: a, responses: { 4XX: {} } } } }", "4XX"],
    ["no operation", "paths: {}", "no operation"],
  ])("with %s is refused", (_, text, message) => {
    expect(() => readDocument(text)).toThrow(message);
  });
});

describe("a request on the wire", () => {
  const [operation] = document.operations.filter(
    (one) => one.path.includes("{task_id}") && one.method === "GET",
  );
  const plan: Plan = {
    operation: operation?.id ?? "",
    kind: "valid",
    method: "GET",
    path: "/1/tasks/{task_id}",
    pathValues: { task_id: [new Ref("tasks", 5, true)] },
    query: [
      { name: "a b", value: ["é&"] },
      { name: "cursor", value: [new Ref("cursors of x", 1)] },
    ],
    headers: [],
    authorization: { kind: "token" },
    requestId: undefined,
    body: undefined,
    expect: { outcome: "accepted" },
    changesNothing: true,
  };

  it("has values of the pools, and leaves out what no pool has", () => {
    const wire = render(plan, { pools, token: "secret-token" });
    expect(wire.target).toBe(`/1/tasks/${someId.toUpperCase()}?a%20b=%C3%A9%26`);
    expect(wire.headers).toEqual([["Authorization", "Bearer secret-token"]]);
  });

  it("becomes a command line without the token", () => {
    const wire = { ...render(plan, { pools, token: "secret-token" }), target: "/a'b\u0001" };
    const line = curlOf({ ...wire, body: new TextEncoder().encode("it's") }, "secret-token");
    expect(line).toContain('-H "Authorization: Bearer $LIM_API_TOKEN"');
    expect(line).toContain(`"$LIM_URL"$'/a\\'b\\x01'`);
    expect(line).toContain(`--data-binary 'it'\\''s'`);
    expect(line).not.toContain("secret-token");
  });
});

it("coverage names operations that were left out, or never carried out", () => {
  const coverage = createCoverage(document, () => true);
  const [first, ...others] = document.operations.map((one) => one.id);
  for (const id of [...others, noOperation])
    for (const outcome of ["accepted", "refused"] as const) coverage.count(id, outcome, 200);
  for (let n = 0; n < 8; n++) {
    // Of fewer all may have met a conflict.
    expect(coverage.gaps({ accepted: 0, refused: 0 })).toEqual([]);
    coverage.count(first ?? "", "accepted", 404);
  }
  expect(coverage.gaps({ accepted: 1, refused: 1 })).toEqual([
    `${first}: no valid request was carried out`,
    `${first}: 0 faulty requests instead of 1`,
  ]);
  expect(coverage.table()).toMatch(new RegExp(`${first} +8 +0 +0 +404×8`));
});
