import { errorNameOfCode, errorTable, taskProgressEventSchema, taskSchema } from "@lim/contracts";
import { z } from "zod";
import type { Answer, Outcome } from "./client.ts";
import type { ApiDocument, DeclaredResponse, JsonObject, Operation } from "./document.ts";
import type { Plan } from "./plan.ts";
import type { Wire } from "./render.ts";
import { requestIdHeader, wellFormedRequestId } from "./requests.ts";
import type { Validators } from "./schemas.ts";

export type Rule =
  | "no answer"
  | "5xx"
  | "undeclared status"
  | "documented, refused"
  | "undocumented, accepted"
  | "content type"
  | "schema"
  | "request id"
  | "error form"
  | "error code"
  | "leak"
  | "event stream"
  | "changed something";

export interface Violation {
  rule: Rule;
  detail: string;
}

export interface CheckContext {
  document: ApiDocument;
  validators: Validators;
  /** What no answer may hold: paths, addresses with passwords, the token. */
  secrets: readonly string[];
}

const quotedChars = 300;
const quote = (text: string): string =>
  text.length > quotedChars ? `${text.slice(0, quotedChars)}… (${text.length} characters)` : text;

/** What the answer breaks of the document, of the form of errors, and of what the plan expects. Pure. */
export function check(plan: Plan, wire: Wire, outcome: Outcome, context: CheckContext): Violation[] {
  if ("failure" in outcome) return [{ rule: "no answer", detail: outcome.failure }];
  const { answer } = outcome;
  const { status } = answer;
  const text = answer.body.toString("utf8");
  const operation = context.document.operations.find((one) => one.id === plan.operation);
  const declared = operation?.responses.get(status);
  const violations: Violation[] = [];
  const fault = (rule: Rule, detail: string) => violations.push({ rule, detail });
  if (status >= 500 && !(status === 501 || status === 505)) fault("5xx", `${status}: ${quote(text)}`);
  if (!isStatusAllowed(plan, status, operation))
    fault("undeclared status", `${status} is not declared for ${plan.operation}: ${quote(text)}`);
  const surprise = surpriseOf(plan, status);
  if (surprise) fault(surprise, `${status}: ${quote(text)}`);
  for (const detail of requestIdFaults(wire, answer)) fault("request id", detail);
  for (const detail of leaks(wire, text, context.secrets)) fault("leak", detail);
  if (plan.method === "HEAD") {
    if (text !== "") fault("schema", `an answer to HEAD has a body: ${quote(text)}`);
  } else if (status >= 400 && !isHealth(declared)) {
    violations.push(...errorFaults(status, answer, text, declared));
    if (status === 401 && !/^Bearer\b/.test(answer.headers["www-authenticate"] ?? ""))
      fault("error form", "401 without WWW-Authenticate: Bearer");
  } else if (declared) {
    violations.push(...bodyFaults(answer, text, declared, context.validators));
  }
  return violations;
}

function isStatusAllowed(plan: Plan, status: number, operation: Operation | undefined): boolean {
  if (operation?.responses.has(status) === true) return true;
  const { expect } = plan;
  if (expect.outcome === "either") return expect.statuses.includes(status);
  return expect.outcome === "refused" && !expect.declared && expect.statuses.includes(status);
}

/** Statuses that say that the request itself was no good. */
const inputRefusals = new Set([400, 401, 405, 413, 414, 415, 431]);

function surpriseOf(plan: Plan, status: number): Rule | undefined {
  if (status >= 500) return undefined;
  const { expect } = plan;
  if (expect.outcome === "accepted") return inputRefusals.has(status) ? "documented, refused" : undefined;
  if (expect.outcome === "either" || expect.statuses.includes(status)) return undefined;
  return status < 400 ? "undocumented, accepted" : "error code";
}

function requestIdFaults(wire: Wire, answer: Answer): string[] {
  const sent = wire.headers.find(([name]) => name === requestIdHeader)?.[1];
  const got = answer.headers[requestIdHeader.toLowerCase()];
  if (got === undefined) return [`${answer.status} has no ${requestIdHeader}`];
  if (!wellFormedRequestId.test(got)) return [`${quote(got)} is not well-formed`];
  if (sent === undefined) return [];
  // Refused before its headers were read: the answer cannot know the id.
  const isUnread = answer.status === 431 || (answer.status === 400 && answer.headers.connection === "close");
  if (wellFormedRequestId.test(sent) && got !== sent && !isUnread) return [`${sent} came back as ${got}`];
  return [];
}

const leakPatterns = [
  /\n\s+at .+[:(]/,
  /\bat (?:async )?[\w.<>]+ \(/,
  /\bnode:internal\b|\bnode_modules\b|file:\/\//,
  /[\w/.-]+\.(?:ts|js|mjs|lua):\d+/,
  /(?:^|[\s"'(=])\/(?:usr|home|root|tmp|var|etc|opt|srv|proc|workspace)\/[\w.]/,
  /\b[A-Z]:\\\\?[\w]/,
  /\b(?:postgres(?:ql)?|redis):\/\//,
];

/** Nothing counts that the request itself said. */
function leaks(wire: Wire, text: string, secrets: readonly string[]): string[] {
  const found: string[] = [];
  const sent = `${decoded(wire.target)} ${wire.headers.map(([, value]) => value).join(" ")} ${Buffer.from(wire.body ?? []).toString("utf8")}`;
  for (const pattern of leakPatterns) {
    const match = pattern.exec(text)?.[0];
    if (match !== undefined && !sent.includes(match.trim().replace(/^["'(=]/, ""))) found.push(quote(match));
  }
  for (const [i, secret] of secrets.entries())
    if (secret !== "" && text.includes(secret)) found.push(`secret ${i + 1} of the run`);
  return found;
}

function decoded(target: string): string {
  try {
    return `${target} ${decodeURIComponent(target)}`;
  } catch {
    return target;
  }
}

/** Readiness answers 503 with its own form. */
function isHealth(declared: DeclaredResponse | undefined): boolean {
  const schema = declared?.contents.get("application/json");
  return typeof schema?.$ref === "string" && !schema.$ref.endsWith("/Error");
}

const errorSchema = z.strictObject({
  error_code: z.int(),
  desc: z.string().min(1),
  detail: z.string(),
  link: z.string().min(1),
});

/** Broken before there is a request: HTTP has statuses of its own for these. */
const ofBrokenRequests: Readonly<Record<number, number>> = {
  408: errorTable.timeout.code,
  431: errorTable.payload_too_large.code,
};

function errorFaults(
  status: number,
  answer: Answer,
  text: string,
  declared: DeclaredResponse | undefined,
): Violation[] {
  const type = mediaType(answer);
  if (type !== "application/json")
    return [{ rule: "error form", detail: `${status} as ${type}: ${quote(text)}` }];
  const parsed = errorSchema.safeParse(parseJson(text));
  if (!parsed.success) return [{ rule: "error form", detail: `${status}: ${quote(text)}` }];
  const { error_code: code, desc } = parsed.data;
  const name = errorNameOfCode(code);
  if (name === undefined) return [{ rule: "error code", detail: `${code} is in no table` }];
  const row = errorTable[name];
  const violations: Violation[] = [];
  if (row.desc !== desc) violations.push({ rule: "error form", detail: `${code} is described as ${desc}` });
  if (row.httpStatus !== status && ofBrokenRequests[status] !== code)
    violations.push({ rule: "error code", detail: `${code} came with status ${status}` });
  const documented = declared?.description.match(/\b26\d{3}\b/g);
  if (documented && !documented.includes(String(code)))
    violations.push({
      rule: "error code",
      detail: `${code} is not among those documented with ${status}: ${quote(text)}`,
    });
  return violations;
}

function mediaType(answer: Answer): string {
  return (answer.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function bodyFaults(
  answer: Answer,
  text: string,
  declared: DeclaredResponse,
  validators: Validators,
): Violation[] {
  if (declared.contents.size === 0)
    return text === "" ? [] : [{ rule: "schema", detail: `a body where none is declared: ${quote(text)}` }];
  const type = mediaType(answer);
  const schema = declared.contents.get(type);
  if (!schema) {
    const types = [...declared.contents.keys()].join(", ");
    return [{ rule: "content type", detail: `${type || "none"} instead of ${types}` }];
  }
  if (type === "text/event-stream")
    return eventFaults(text, answer.cut).map((detail) => ({ rule: "event stream", detail }));
  const value = type === "application/json" ? parseJson(text) : text;
  const detail = faultOf(value, schema, validators);
  return detail === undefined ? [] : [{ rule: "schema", detail: `${detail} in ${quote(text)}` }];
}

function faultOf(value: unknown, schema: JsonObject, validators: Validators): string | undefined {
  return value === undefined ? "no JSON" : validators.responseFault(schema, value);
}

const eventSchemas = {
  progress: z.strictObject(taskProgressEventSchema.shape),
  end: z.strictObject(taskSchema.shape),
  removed: z.object({ task_id: taskSchema.shape.task_id }),
};

/** Faults of the events of a task's progress, as far as they were read; whole where the service ended the stream. */
export function eventFaults(text: string, cut: boolean): string[] {
  const blocks = text.split(/\r?\n\r?\n/);
  const rest = blocks.pop() ?? "";
  const faults = cut || rest === "" ? [] : [`the stream ends within an event: ${quote(rest)}`];
  let last = "";
  for (const block of blocks) {
    const fields = block.split(/\r?\n/).filter((line) => line !== "" && !line.startsWith(":"));
    const odd = fields.find((line) => !/^(?:event|data|id|retry):/.test(line));
    if (odd !== undefined) faults.push(`${quote(odd)} is no field of an event`);
    const fieldOf = (name: string) =>
      fields
        .find((line) => line.startsWith(`${name}:`))
        ?.slice(name.length + 1)
        .trim();
    const [event, data] = [fieldOf("event"), fieldOf("data")];
    if (data === undefined) continue;
    if (last === "end" || last === "removed") faults.push(`${event} comes after ${last}`);
    last = event ?? "";
    const schema = Object.hasOwn(eventSchemas, last)
      ? eventSchemas[last as keyof typeof eventSchemas]
      : undefined;
    if (!schema) faults.push(`${quote(last)} is no event of this stream`);
    else if (!schema.safeParse(parseJson(data)).success) faults.push(`data of ${last}: ${quote(data)}`);
  }
  if (!cut && last !== "end" && last !== "removed") faults.push("the stream ended before the task did");
  return faults;
}
