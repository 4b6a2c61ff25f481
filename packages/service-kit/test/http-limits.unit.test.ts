import { once } from "node:events";
import { connect } from "node:net";
import { errorBodySchema } from "@lim/contracts";
import type { FastifyInstance, InjectOptions } from "fastify";
import { Registry } from "prom-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { createHttpApp, createLogger, errorResponses, httpLimits, openApiYaml } from "../src/index.ts";

const requestId = "1536751345,8977fe61-1c95-4c8b-b2c6-3ed9b2c8ca33";
const json = { "content-type": "application/json" };
let app: FastifyInstance;
let port: number;

beforeAll(async () => {
  app = await createHttpApp({
    service: "index-test",
    version: "1.2.3",
    description: "A test.",
    logger: createLogger({ service: "index-test", level: "silent" }),
    metrics: new Registry(),
    health: [],
    isReady: () => true,
    bodyLimitBytes: 1000,
    bearerToken: undefined,
  });
  const text = z.string().optional();
  app.get(
    "/1/things",
    {
      schema: {
        operationId: "getThings",
        description: "Gets things.",
        querystring: z.strictObject({ limit: z.coerce.number().int().optional(), label: text, q: text }),
        response: errorResponses("bad_input", "not_found"),
      },
    },
    async (request) => request.query,
  );
  app.post(
    "/1/things",
    {
      schema: {
        operationId: "createThing",
        description: "Makes a thing.",
        body: z.strictObject({ name: text }),
      },
    },
    async (request) => request.body,
  );
  app.get(
    "/1/things/:id",
    {
      schema: { operationId: "getThing", description: "Gets it.", params: z.strictObject({ id: z.uuid() }) },
    },
    async () => ({}),
  );
  app.delete(
    "/1/things",
    { schema: { operationId: "removeThings", description: "Removes them." } },
    async () => ({}),
  );
  app.get("/1/boom", async () => {
    throw new Error(`cannot open ${import.meta.filename}`);
  });
  await app.listen({ host: "127.0.0.1", port: 0 });
  port = (app.server.address() as { port: number }).port;
});
afterAll(async () => app.close());

/** Head and body of what comes back for these bytes. */
async function answerTo(bytes: string): Promise<{ head: string; body: string }> {
  const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
  let received = "";
  socket.on("data", (chunk) => (received += chunk));
  await once(socket, "close");
  const [head = "", body = ""] = received.split("\r\n\r\n");
  return { head, body };
}

const longest = `label=${"x".repeat(httpLimits.maxQueryChars - "label=".length)}`;

describe("a request past a limit or out of form", () => {
  it.each([
    ["a query string past its limit", { url: `/1/things?${longest}x` }, 413],
    ["such a query, encoded", { url: `/1/things?label=${"%20".repeat(3000)}` }, 413],
    ["such a query to an unknown path", { url: `/none?${longest}x` }, 413],
    ["a broken encoding in the path", { url: "/1/%E0%A4%A" }, 400],
    ["a broken encoding in the query", { url: "/1/things?label=%E0%A4%A" }, 400],
    ["a percent sign alone in the query", { url: "/1/things?label=%" }, 400],
    ["a broken encoding in a query's name", { url: "/1/things?%ff=1" }, 400],
    ["a NUL in the query", { url: "/1/things?label=%00" }, 400],
    [
      "a path parameter past its limit",
      { url: `/1/things/${"x".repeat(httpLimits.maxParamChars + 1)}` },
      400,
    ],
    ["a number twice", { url: "/1/things?limit=1&limit=2" }, 400],
    ["a text twice", { url: "/1/things?label=a&label=b" }, 400],
    ["__proto__ in the query", { url: "/1/things?__proto__=1" }, 400],
    ["__proto__ with a member in the query", { url: "/1/things?__proto__[limit]=1" }, 400],
    ["constructor in the query", { url: "/1/things?constructor=1" }, 400],
    [
      "__proto__ in the body",
      { method: "POST", url: "/1/things", payload: '{"__proto__":{}}', headers: json },
      400,
    ],
    [
      "constructor.prototype in the body",
      { method: "POST", url: "/1/things", payload: '{"constructor":{"prototype":{}}}', headers: json },
      400,
    ],
    ["a body past its limit", { method: "POST", url: "/1/things", payload: { name: "x".repeat(1000) } }, 413],
    [
      "another media type",
      { method: "POST", url: "/1/things", payload: "a", headers: { "content-type": "a/b" } },
      415,
    ],
    [
      "a body where none is declared",
      { method: "DELETE", url: "/1/things", payload: { dry_run: true } },
      400,
    ],
    ["OPTIONS", { method: "OPTIONS", url: "/1/things" }, 404],
    ["OPTIONS of everything", { method: "OPTIONS", url: "*" }, 404],
    ["an unknown path", { url: "/none" }, 404],
    ["a failure", { url: "/1/boom" }, 500],
    ["a file that may not be served", { url: "/docs/static/%00" }, 400],
    ["a folder above the served one", { url: "/docs/static/..%2f..%2fpackage.json" }, 404],
    [
      "a range that is not there",
      { url: "/docs/static/index.css", headers: { range: "bytes=9999999-" } },
      400,
    ],
  ] as [string, InjectOptions, number][])(
    "%s is refused in the one form, with the request's id and nothing of the inside",
    async (_name, request, status) => {
      const headers = { ...request.headers, "luna-request-id": requestId };
      const answer = await app.inject({ method: "GET", ...request, headers });
      expect(answer.statusCode).toBe(status);
      expect(answer.headers["luna-request-id"]).toBe(requestId);
      expect(errorBodySchema.parse(answer.json()).link).toBe("/docs");
      expect(answer.body).not.toMatch(/node_modules|service-kit|\.[jt]s\b|\n\s+at /);
    },
  );

  it("names the limit of the query string", async () => {
    const { detail } = (await app.inject(`/1/things?${longest}x`)).json();
    expect(detail).toBe("the query string has 8193 characters, at most 8192 are taken");
  });

  it("names the limit of the body", async () => {
    const { detail } = (
      await app.inject({ method: "POST", url: "/1/things", payload: { name: "x".repeat(1000) } })
    ).json();
    expect(detail).toBe("the body has more than 1000 bytes");
  });

  it.each([
    ["bytes that are no HTTP", "NOT HTTP\r\n\r\n", 400, 26001],
    [
      "headers past Node's limit",
      `GET / HTTP/1.1\r\nHost: a\r\nX: ${"y".repeat(20_000)}\r\n\r\n`,
      431,
      26003,
    ],
    ["no Host", "GET /1/things HTTP/1.1\r\nConnection: close\r\n\r\n", 400, 26001],
    [
      "a length and chunks",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      400,
      26001,
    ],
  ])("%s are refused in the one form, with an id", async (_name, bytes, status, code) => {
    const { head, body } = await answerTo(bytes);
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(head).toMatch(/^luna-request-id: \d{10},[0-9a-f-]{36}$/im);
    expect(errorBodySchema.parse(JSON.parse(body)).error_code).toBe(code);
  });
});

describe("a request within the limits", () => {
  it.each([
    ["no body where none is declared", { method: "DELETE", url: "/1/things" }],
    ["the longest query", { url: `/1/things?${longest}` }],
    ["an encoded query", { url: "/1/things?label=%C3%A9%20%25+a" }],
    ["an empty query", { url: "/1/things?" }],
    ["HEAD", { method: "HEAD", url: "/1/things" }],
    [
      "a content type with a charset",
      {
        method: "POST",
        url: "/1/things",
        payload: '{"name":"a"}',
        headers: { "content-type": "Application/JSON; charset=UTF-8" },
      },
    ],
  ] as [string, InjectOptions][])("%s is answered", async (_name, request) => {
    expect((await app.inject(request)).statusCode).toBe(200);
  });

  it("HEAD has the headers of GET and no body", async () => {
    const [get, head] = [
      await app.inject("/1/things"),
      await app.inject({ method: "HEAD", url: "/1/things" }),
    ];
    expect([head.body, head.headers["content-length"]]).toEqual(["", get.headers["content-length"]]);
  });

  it("an expectation that nobody knows is passed over", async () => {
    const { head } = await answerTo(
      "GET /1/things HTTP/1.1\r\nHost: a\r\nExpect: x\r\nConnection: close\r\n\r\n",
    );
    expect(head).toMatch(/^HTTP\/1\.1 200 /);
  });
});

describe("Luna-Request-Id", () => {
  it.each([
    "",
    "x",
    "1,2",
    `${requestId} `.repeat(2),
    requestId.slice(0, -1),
    `x${requestId}`,
    "1".repeat(13) + requestId,
  ])("of another form is replaced: %j", async (given) => {
    for (const url of ["/1/things", "/none"]) {
      const { headers } = await app.inject({ url, headers: { "luna-request-id": given } });
      expect(headers["luna-request-id"]).toMatch(/^\d{10},[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      expect(headers["luna-request-id"]).not.toBe(given);
    }
  });
});

describe("the document", () => {
  interface Operation {
    responses: Record<string, { description: string; content: Record<string, { schema: { $ref: string } }> }>;
  }

  it("says of every operation what any of them can be refused with", async () => {
    const { paths } = parse(await openApiYaml(app)) as { paths: Record<string, Record<string, Operation>> };
    const statuses = (path: string, method: string) => Object.keys(paths[path]?.[method]?.responses ?? {});
    expect(statuses("/1/things", "get")).toEqual(["400", "401", "404", "413", "431", "500", "503"]);
    expect(statuses("/1/things", "post")).toEqual(["400", "401", "413", "415", "431", "500", "503"]);
    expect(statuses("/livez", "get")).toEqual(["200", "400", "413", "431", "500"]);
    expect(statuses("/healthcheck", "get")).toEqual(["200", "400", "413", "431", "500", "503"]);
    const responses = paths["/1/things"]?.get?.responses ?? {};
    expect(responses["400"]?.description).toBe("26001 Input failed validation");
    expect(responses["413"]?.content["application/json"]?.schema.$ref).toBe("#/components/schemas/Error");
  });
});
