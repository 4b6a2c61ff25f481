import fc from "fast-check";
import { anyText } from "./arbitraries.ts";
import type { ApiDocument, Operation } from "./document.ts";
import type { PlanKind } from "./mutations.ts";
import type { Plan } from "./plan.ts";
import { validPlans } from "./requests.ts";

/** Row of requests that reach no operation. */
export const noOperation = "(no operation)";

/** What HTTP itself, and paths that no operation has, may be answered with: always in the one form of error. */
const framework = [400, 404, 405, 413, 414, 415, 431, 501, 505];

const strangePaths = [
  "/",
  "//",
  "/1",
  "/1/",
  "/1/nothing",
  "/2/tasks",
  "/0/tasks",
  "/1/Tasks",
  "/1/tasks/",
  "//1//tasks",
  "/1/tasks/5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11/nothing",
  "/1/tasks/../master",
  "/1/tasks/%",
  "/1/tasks/%2",
  "/1/tasks/%zz",
  "/1/tasks/%ff",
  "/1/tasks/%c0%af",
  "/1/tasks/%00",
  "/1/tasks/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
  "/1/tasks/a%2fb",
  "/1/indexes/%",
  "/1/indexes/%ed%a0%80",
  "/%",
  "/%00",
  "/__proto__",
  "/constructor",
  "/.env",
  "/docs/../../package.json",
  "/docs/static/..%2f..%2f..%2fpackage.json",
  "/docs/nothing",
  "/1/tasks;x=1",
  "/1/tasks\\x",
  "*",
];
const brokenTargets = [
  "/1/tasks/\u0001",
  "/1/tasks\u0000",
  "/1/tasks/a b",
  "/1/tasks?x=\u0007",
  "/1/tasks?limit=1\r\n\tHTTP/1.1",
  "/1/tasks?x=\u00e9 ",
  "1/tasks",
  "",
];
const brokenQueries = [
  "%",
  "%ff=%ff",
  "a=%",
  "=",
  "&&&",
  "a[b][c]=1",
  "?",
  "limit=%00",
  "x=%zz",
  ";",
  "limit=1;x=2",
  "+",
  "\u00e9=\u00ff",
];
const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "SEARCH", "BREW"];

function bare(document: ApiDocument, kind: string, method: string): Plan {
  return {
    operation: noOperation,
    kind,
    method,
    path: "/1/tasks",
    pathValues: {},
    query: [],
    headers: [],
    authorization: { kind: document.operations.some((one) => one.secured) ? "token" : "none" },
    requestId: undefined,
    body: undefined,
    expect: { outcome: "refused", statuses: framework, declared: false },
    changesNothing: true,
  };
}

/** Requests that no operation answers. */
export function strayPlans(document: ApiDocument): PlanKind[] {
  const anyMethod = fc.constantFrom("GET", "POST", "DELETE");
  const raw = (kind: string, paths: fc.Arbitrary<string>): PlanKind => ({
    name: kind,
    plans: fc
      .tuple(anyMethod, paths)
      .map(([method, rawPath]) => ({ ...bare(document, kind, method), rawPath })),
  });
  const undeclared = document.operations.flatMap(({ path }) =>
    methods
      .filter((method) => !document.operations.some((one) => one.path === path && one.method === method))
      .map((method) => ({ path, method })),
  );
  const segments = fc.array(anyText, {
    minLength: 1,
    maxLength: 5,
  });
  return [
    raw("strange path", fc.constantFrom(...strangePaths)),
    raw(
      "random path",
      segments.map((texts) => `/${texts.map((text) => encodeURIComponent(text.toWellFormed())).join("/")}`),
    ),
    raw("broken target", fc.constantFrom(...brokenTargets)),
    raw(
      "long address",
      fc.constantFrom(
        `/1/tasks/${"a".repeat(5_000)}`,
        `/1/${"tasks/".repeat(1_000)}`,
        `/1/tasks?task_ids=${"0".repeat(40_000)}`,
      ),
    ),
    {
      name: "wrong method",
      plans: fc.tuple(fc.constantFrom(...undeclared), fc.uuid()).map(([{ path, method }, id]) => ({
        ...bare(document, "wrong method", method),
        path,
        pathValues: Object.fromEntries([...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => [name, [id]])),
      })),
    },
  ];
}

/** Oddities that HTTP allows: the operation may take or refuse them, but never fail. */
export function oddPlans(document: ApiDocument, operation: Operation): PlanKind[] {
  const valid = validPlans(document, operation);
  const odd = <T>(
    name: string,
    oddities: fc.Arbitrary<T>,
    apply: (plan: Plan, oddity: T) => Partial<Plan>,
  ) => ({
    name,
    plans: fc.tuple(valid, oddities).map(
      ([plan, oddity]): Plan => ({
        ...plan,
        expect: { outcome: "either", statuses: framework },
        ...apply(plan, oddity),
        kind: name,
      }),
    ),
  });
  const kinds = [
    odd("odd query", fc.constantFrom(...brokenQueries), (_, rawQuery) => ({ rawQuery })),
    odd("long query", fc.constantFrom(2_000, 9_000, 20_000), (_, length) => ({
      rawQuery: `x=${"%20".repeat(length / 3)}`,
    })),
    odd("odd headers", fc.constantFrom(...oddHeaders), (plan, header) => ({
      headers: [...plan.headers, header],
    })),
  ];
  if (operation.method === "GET")
    kinds.push(odd("HEAD", fc.constant(0), () => ({ method: "HEAD", requestId: undefined })));
  if (!operation.body)
    kinds.push(
      odd("undeclared body", fc.constantFrom("{}", "{", "", "x".repeat(100_000)), (_, text) => ({
        body: {
          kind: "bytes",
          bytes: new TextEncoder().encode(text),
          contentType: text.startsWith("x") ? "text/plain" : "application/json",
        },
      })),
    );
  return kinds;
}

const oddHeaders: Plan["headers"] = [
  { name: "Accept", value: ["image/png"] },
  { name: "Accept", value: ["application/json;q=x, */*"] },
  { name: "Accept-Encoding", value: ["gzip, br, *;q=0"] },
  { name: "X-Http-Method-Override", value: ["DELETE"] },
  { name: "Range", value: ["bytes=0-1"] },
  { name: "If-None-Match", value: ["*"] },
  { name: "Expect", value: ["something"] },
  { name: "Cookie", value: ["a=b; __proto__=1"] },
  { name: "Accept-Version", value: ["99.x"] },
  { name: "Host", value: ["other.example"] },
  { name: "Last-Event-ID", value: ["99999999999"] },
  { name: "X-Forwarded-For", value: ["\u00ff, 1"] },
  { name: "X-Long", value: ["a".repeat(12_000)] },
];
