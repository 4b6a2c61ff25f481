import { describe, expect, it } from "vitest";
import { check, eventFaults, type Rule } from "./checks.ts";
import type { Answer } from "./client.ts";
import { readDocument } from "./document.ts";
import type { Plan } from "./plan.ts";
import type { Wire } from "./render.ts";
import { createValidators } from "./schemas.ts";

const document = readDocument(`
openapi: 3.1.1
components:
  schemas:
    Error: { type: object, properties: { error_code: { type: integer } } }
    Thing:
      type: object
      properties: { name: { type: string }, inner: { type: object, properties: { n: { type: integer } } } }
      required: [name]
paths:
  /1/things/{id}:
    get:
      operationId: getThing
      parameters: [{ name: id, in: path, required: true, schema: { type: string } }]
      responses:
        "200": { description: ok, content: { application/json: { schema: { $ref: "#/components/schemas/Thing" } } } }
        "204": { description: nothing }
        "400": { description: 26001 bad, content: { application/json: { schema: { $ref: "#/components/schemas/Error" } } } }
        "404": { description: 26102 gone, content: { application/json: { schema: { $ref: "#/components/schemas/Error" } } } }
        "500": { description: 26000 internal, content: { application/json: { schema: { $ref: "#/components/schemas/Error" } } } }
`);
const context = { document, validators: createValidators(document), secrets: ["very secret"] };
const id = "1700000000,5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11";
const valid: Plan = {
  operation: "getThing",
  kind: "valid",
  method: "GET",
  path: "/1/things/{id}",
  pathValues: { id: ["1"] },
  query: [],
  headers: [],
  authorization: { kind: "none" },
  requestId: id,
  body: undefined,
  expect: { outcome: "accepted" },
  changesNothing: true,
};
const faulty: Plan = { ...valid, expect: { outcome: "refused", statuses: [400], declared: true } };
const wire: Wire = {
  method: "GET",
  target: "/1/things/1",
  headers: [["Luna-Request-Id", id]],
  body: undefined,
};
const badInput = { error_code: 26001, desc: "Input failed validation", detail: "x", link: "/docs" };

function answerOf(status: number, body: unknown, headers: Answer["headers"] = {}): Answer {
  const isText = typeof body === "string";
  return {
    status,
    headers: {
      "content-type": isText ? "text/plain" : "application/json",
      "luna-request-id": id,
      ...headers,
    },
    body: Buffer.from(body === undefined ? "" : isText ? body : JSON.stringify(body)),
    elapsedMs: 1,
    cut: false,
  };
}

const rules = (plan: Plan, answer: Answer): Rule[] =>
  check(plan, wire, { answer }, context).map((violation) => violation.rule);

describe("an answer that keeps the document has no violation", () => {
  it.each<[string, Plan, Answer]>([
    ["a body that matches", valid, answerOf(200, { name: "a", inner: { n: 1 } })],
    ["no body where none is declared", valid, answerOf(204, undefined)],
    ["a refusal of bad input", faulty, answerOf(400, badInput)],
  ])("%s", (_, plan, answer) => {
    expect(rules(plan, answer)).toEqual([]);
  });
});

describe("an answer that breaks the document is caught", () => {
  const name = "a";
  it.each<[string, Plan, Answer, Rule]>([
    ["a status that is not declared", valid, answerOf(202, { name }), "undeclared status"],
    [
      "500, though it is declared",
      valid,
      answerOf(500, { ...badInput, error_code: 26000, desc: "Internal error" }),
      "5xx",
    ],
    ["a property that no schema names", valid, answerOf(200, { name, extra: 1 }), "schema"],
    ["such a property deep inside", valid, answerOf(200, { name, inner: { n: 1, extra: 1 } }), "schema"],
    ["a missing property", valid, answerOf(200, {}), "schema"],
    ["a property of another type", valid, answerOf(200, { name: 1 }), "schema"],
    ["text that is no JSON", valid, answerOf(200, "{", { "content-type": "application/json" }), "schema"],
    ["a body where none is declared", valid, answerOf(204, { name }), "schema"],
    ["another content type", valid, answerOf(200, "a"), "content type"],
    ["no content type", valid, answerOf(200, { name }, { "content-type": undefined }), "content type"],
    ["a refusal of what is documented", valid, answerOf(400, badInput), "documented, refused"],
    ["acceptance of a fault", faulty, answerOf(200, { name }), "undocumented, accepted"],
    [
      "another refusal than the fault deserves",
      faulty,
      answerOf(404, { ...badInput, error_code: 26102, desc: "List not found" }),
      "error code",
    ],
    ["an error without its link", faulty, answerOf(400, { ...badInput, link: undefined }), "error form"],
    ["an error with more in it", faulty, answerOf(400, { ...badInput, stack: "x" }), "error form"],
    ["an error as text", faulty, answerOf(400, "bad"), "error form"],
    ["a code that is in no table", faulty, answerOf(400, { ...badInput, error_code: 1 }), "error code"],
    [
      "a code of another status",
      faulty,
      answerOf(400, { ...badInput, error_code: 26002, desc: "Object not found" }),
      "error code",
    ],
    [
      "a code that is not documented with the status",
      valid,
      answerOf(404, { ...badInput, error_code: 26002, desc: "Object not found" }),
      "error code",
    ],
    [
      "a description that is not the table's",
      faulty,
      answerOf(400, { ...badInput, desc: "No" }),
      "error form",
    ],
    [
      "a stack trace",
      faulty,
      answerOf(400, { ...badInput, detail: "Error: x\n    at f (a.js:1:2)" }),
      "leak",
    ],
    ["a place in the sources", faulty, answerOf(400, { ...badInput, detail: "tasks.ts:12 refused" }), "leak"],
    ["a path of the machine", faulty, answerOf(400, { ...badInput, detail: "no file /var/lib/x" }), "leak"],
    [
      "an address with its password",
      faulty,
      answerOf(400, { ...badInput, detail: "postgres://u:p@h/d" }),
      "leak",
    ],
    ["a secret of the run", valid, answerOf(200, { name: "very secret" }), "leak"],
    [
      "a request id that did not come back",
      valid,
      answerOf(200, { name }, { "luna-request-id": `1${id}` }),
      "request id",
    ],
    ["no request id", valid, answerOf(200, { name }, { "luna-request-id": undefined }), "request id"],
    [
      "a request id of another form",
      valid,
      answerOf(200, { name }, { "luna-request-id": "x" }),
      "request id",
    ],
  ])("%s", (_, plan, answer, rule) => {
    expect(rules(plan, answer)).toContain(rule);
  });

  it("no answer at all", () => {
    expect(check(valid, wire, { failure: "socket hang up" }, context)).toEqual([
      { rule: "no answer", detail: "socket hang up" },
    ]);
  });

  it("401 without a challenge", () => {
    const plan: Plan = { ...valid, expect: { outcome: "refused", statuses: [401], declared: false } };
    const body = { ...badInput, error_code: 26009, desc: "Authorization is missing or wrong" };
    expect(rules(plan, answerOf(401, body))).toEqual(["error form"]);
    expect(rules(plan, answerOf(401, body, { "www-authenticate": "Bearer" }))).toEqual([]);
  });

  it("but what the request itself said may come back", () => {
    const asked: Wire = { ...wire, target: "/1/things/%2Fetc%2Fpasswd" };
    const answer = answerOf(400, { ...badInput, detail: "no thing /etc/passwd" });
    expect(check(faulty, asked, { answer }, context)).toEqual([]);
    expect(check(faulty, wire, { answer }, context)).toMatchObject([{ rule: "leak" }]);
  });
});

describe("events of a task's progress", () => {
  const task_id = "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11";
  const event = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  const progress = event("progress", { task_id, status: "pending", attempt: 0, progress: null });
  const removed = event("removed", { task_id });

  it("are well-formed, and the last one says how it ended", () => {
    expect(eventFaults(`retry: 2000\n\n: still there\n\n${progress}${removed}`, false)).toEqual([]);
    expect(eventFaults(`${progress}event: pro`, true)).toEqual([]);
  });

  it.each([
    ["an end before the task's", progress, false],
    ["an event cut in two", `${removed}event: pro`, false],
    ["an event after the last one", `${removed}${progress}`, true],
    ["an unknown event", event("stopped", { task_id }), true],
    ["data that is no JSON", "event: progress\ndata: x\n\n", true],
    ["data of another form", event("progress", { task_id }), true],
    [
      "data with more in it",
      event("progress", { task_id, status: "pending", attempt: 0, progress: null, x: 1 }),
      true,
    ],
    ["a line that is no field", "progress\n\n", true],
  ])("are caught: %s", (_, text, cut) => {
    expect(eventFaults(text, cut)).not.toEqual([]);
  });
});
