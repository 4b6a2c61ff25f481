import { connect } from "node:net";
import { errorBodySchema, LimError } from "@lim/contracts";
import type { FastifyInstance, InjectOptions } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { createHttpApp, createLogger, errorResponses, openApiYaml } from "../src/index.ts";

let app: FastifyInstance;
let ready: boolean;
let redis: string;
let release: (() => void) | undefined;

beforeEach(async () => {
  ready = false;
  redis = "ok";
  release = undefined;
  app = await createHttpApp({
    service: "index-test",
    version: "1.2.3",
    description: "A test.",
    logger: createLogger({ service: "index-test", level: "silent" }),
    metrics: new Registry(),
    health: [
      {
        name: "redis",
        check: async () => {
          if (redis !== "ok") throw new LimError("redis_unavailable", redis);
        },
      },
    ],
    isReady: () => ready,
    bodyLimitBytes: 1000,
  });
  const typed = app.withTypeProvider<ZodTypeProvider>();
  const thing = z.object({ name: z.string() }).meta({ id: `Thing${Math.random().toString(36).slice(2)}` });
  typed.post(
    "/1/things",
    {
      schema: {
        operationId: "createThing",
        body: z.strictObject({ name: z.string().min(1), inner: z.strictObject({ n: z.int() }).optional() }),
        response: { 201: thing, ...errorResponses("bad_input") },
      },
    },
    async (request, reply) => {
      if (request.body.name === "boom") throw new Error("secret detail");
      if (request.body.name === "busy") throw new LimError("indexer_busy", "building");
      if (request.body.name === "slow") await new Promise<void>((resolve) => (release = resolve));
      return reply.code(201).send({ ...request.body, extra: 1 } as { name: string });
    },
  );
});
afterEach(async () => app.close());

function post(body: unknown, headers = {}) {
  return app.inject({ method: "POST", url: "/1/things", payload: body as object, headers });
}

describe("createHttpApp", () => {
  it("answers, leaving out what the response schema does not name", async () => {
    const response = await post({ name: "a" });
    expect([response.statusCode, response.json()]).toEqual([201, { name: "a" }]);
  });

  it("names the places of invalid input", async () => {
    const response = await post({ name: "a", inner: { n: 1.5 } });
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({
      error_code: 26001,
      detail: expect.stringContaining("body/inner/n"),
    });
  });

  it.each([
    ["unknown route", { method: "GET", url: "/1/none" }, 404, 26002],
    ["unknown query", { method: "POST", url: "/1/things?x=1", payload: { name: "a" } }, 400, 26001],
    [
      "broken JSON",
      { method: "POST", url: "/1/things", payload: "{", headers: { "content-type": "application/json" } },
      400,
      26001,
    ],
    [
      "empty body",
      { method: "POST", url: "/1/things", headers: { "content-type": "application/json" } },
      400,
      26001,
    ],
    [
      "prototype poisoning",
      {
        method: "POST",
        url: "/1/things",
        payload: '{"__proto__":{"a":1}}',
        headers: { "content-type": "application/json" },
      },
      400,
      26001,
    ],
    [
      "other media",
      { method: "POST", url: "/1/things", payload: "a", headers: { "content-type": "text/plain" } },
      415,
      26004,
    ],
    ["too large", { method: "POST", url: "/1/things", payload: { name: "x".repeat(2000) } }, 413, 26003],
    ["bad address", { method: "GET", url: "/1/%zz" }, 400, 26001],
    ["LimError", { method: "POST", url: "/1/things", payload: { name: "busy" } }, 409, 26101],
    ["unforeseen", { method: "POST", url: "/1/things", payload: { name: "boom" } }, 500, 26000],
  ] as const)("%s has the one form of error", async (_name, request, status, code) => {
    const response = await app.inject(request as InjectOptions);
    expect(response.statusCode).toBe(status);
    const body = errorBodySchema.parse(response.json());
    expect(body.error_code).toBe(code);
    expect(body.link).toBe("/docs");
    expect(response.body).not.toMatch(/secret detail|at .*\.ts/);
    expect(response.headers["luna-request-id"]).toMatch(/^\d+,[0-9a-f-]{36}$/);
  });

  it("echoes a well-formed Luna-Request-Id and replaces any other", async () => {
    const id = "1536751345,8977fe61-1c95-4c8b-b2c6-3ed9b2c8ca33";
    expect((await post({ name: "a" }, { "luna-request-id": id })).headers["luna-request-id"]).toBe(id);
    const replaced = (await post({ name: "a" }, { "luna-request-id": "x" })).headers["luna-request-id"];
    expect(replaced).toMatch(/^\d{10},[0-9a-f-]{36}$/);
  });

  it("echoes a sane X-Request-Id, and gives its own where there is none", async () => {
    const of = async (headers: Record<string, string>) => {
      const answer = (await post({ name: "a" }, headers)).headers;
      return { other: answer["x-request-id"], own: answer["luna-request-id"] };
    };
    expect((await of({ "x-request-id": "trace/1:a=b" })).other).toBe("trace/1:a=b");
    const without = await of({});
    expect(without.other).toBe(without.own);
    for (const bad of ["with blank", "{}", "x".repeat(129), ""]) {
      const answer = await of({ "x-request-id": bad });
      expect(answer.other).toBe(answer.own);
    }
  });

  it("logs both ids of a request", async () => {
    const lines: string[] = [];
    const logged = await createHttpApp({
      service: "index-test",
      version: "1.2.3",
      description: "A test.",
      logger: pino({ level: "info" }, { write: (line) => void lines.push(line) }),
      metrics: new Registry(),
      health: [],
      isReady: () => true,
    });
    const id = "1536751345,8977fe61-1c95-4c8b-b2c6-3ed9b2c8ca33";
    const headers = { "luna-request-id": id, "x-request-id": "of-a-proxy" };
    await logged.inject({ method: "POST", url: "/nowhere", headers });
    await logged.close();
    const answered = lines.map((line) => JSON.parse(line)).find(({ msg }) => msg === "request answered");
    expect(answered).toMatchObject({ luna_request_id: id, x_request_id: "of-a-proxy", status: 404 });
  });

  it("tells health, liveness, readiness, version and metrics", async () => {
    const status = async (url: string) => (await app.inject(url)).statusCode;
    expect(await status("/livez")).toBe(200);
    expect(await status("/readyz")).toBe(503);
    ready = true;
    expect(await status("/readyz")).toBe(200);
    expect((await app.inject("/healthcheck")).json()).toEqual({ status: "ok", components: { redis: "ok" } });
    redis = "away";
    const failing = await app.inject("/healthcheck");
    expect([failing.statusCode, failing.json()]).toEqual([
      503,
      { status: "failing", components: { redis: "away" } },
    ]);
    expect((await app.inject("/version")).json()).toEqual({ service: "index-test", version: "1.2.3" });
    await app.inject("/nowhere");
    const metrics = await app.inject("/metrics");
    expect(metrics.body).toMatch(/^lim_http_errors_total\{error="not_found"\} [1-9]/m);
    expect(metrics.body).toMatch(/^lim_build_info\{service="index-test",version="1.2.3"\} 1$/m);
    expect(metrics.headers["content-type"]).toContain("text/plain");
    expect(metrics.body).toMatch(/^lim_http_request_duration_seconds_count\{.*route="\/version".*\} 1$/m);
  });

  it("writes a stable OpenAPI 3.1 document and serves it", async () => {
    const yaml = await openApiYaml(app);
    expect(yaml).toMatch(/^openapi: 3\.1\.\d/);
    expect(yaml).toContain("operationId: createThing");
    expect(yaml).toContain("$ref: '#/components/schemas/Error'".replaceAll("'", '"'));
    expect(yaml).not.toMatch(/^ {4}\w+Input:/m);
    expect(await openApiYaml(app)).toBe(yaml);
    expect((await app.inject("/docs")).statusCode).toBe(200);
    expect((await app.inject("/docs/json")).json().openapi).toMatch(/^3\.1/);
  });

  it("answers bytes that are no HTTP with the one form of error", async () => {
    await app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = app.server.address() as { port: number };
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => socket.write("NOT HTTP\r\n\r\n"));
      let received = "";
      socket.on("data", (chunk) => (received += chunk));
      socket.on("close", () => resolve(received));
      socket.on("error", reject);
    });
    expect(text).toMatch(/^HTTP\/1\.1 400 /);
    expect(JSON.parse(text.split("\r\n\r\n")[1] ?? "").error_code).toBe(26001);
  });

  it("answers what is in flight when it closes", async () => {
    const origin = await app.listen({ host: "127.0.0.1", port: 0 });
    const slow = fetch(`${origin}/1/things`, {
      method: "POST",
      body: '{"name":"slow"}',
      headers: { "content-type": "application/json" },
    });
    while (!release) await new Promise((resolve) => setImmediate(resolve));
    const closed = app.close();
    release();
    expect((await slow).status).toBe(201);
    await closed;
    await expect(fetch(`${origin}/version`)).rejects.toThrow();
  });

  it("does not wait for who connected and asks nothing, and goes on answering others", async () => {
    const origin = await app.listen({ host: "127.0.0.1", port: 0 });
    const silent = connect(Number(new URL(origin).port), "127.0.0.1");
    const ended = new Promise((resolve) => silent.once("close", resolve).once("error", () => {}));
    await new Promise((resolve) => silent.once("connect", resolve));
    // Whatever comes later is told of connections that came before.
    await (await fetch(`${origin}/livez`)).text();
    const slow = fetch(`${origin}/1/things`, {
      method: "POST",
      body: '{"name":"slow"}',
      headers: { "content-type": "application/json" },
    });
    while (!release) await new Promise((resolve) => setImmediate(resolve));
    const closed = app.close();
    await ended;
    release();
    expect((await slow).status).toBe(201);
    await closed;
  });
});

describe("an app that closes", () => {
  it("refuses work while it does, and still tells its health", async () => {
    ready = true;
    let begun = () => {};
    const closing = new Promise<void>((resolve) => (begun = resolve));
    let finish = () => {};
    const held = new Promise<void>((resolve) => (finish = resolve));
    app.addHook("preClose", () => {
      begun();
      return held;
    });
    const origin = await app.listen({ host: "127.0.0.1", port: 0 });
    const closed = app.close();
    await closing;
    const answer = async (path: string) => {
      const response = await fetch(origin + path);
      return [response.status, await response.json(), response.headers.get("connection")];
    };
    const health = (status: string) => expect.objectContaining({ status });
    expect(await answer("/livez")).toEqual([200, health("ok"), "close"]);
    expect(await answer("/healthcheck")).toEqual([200, health("ok"), "close"]);
    expect(await answer("/readyz")).toEqual([503, health("failing"), "close"]);
    expect(await answer("/version")).toEqual([503, expect.objectContaining({ error_code: 26007 }), "close"]);
    finish();
    await closed;
  });
});

describe("the log of requests", () => {
  it("has a line at info for what changes or fails, and none for reads that pollers send every second", async () => {
    const lines: string[] = [];
    const logged = await createHttpApp({
      service: "index-test",
      version: "1.2.3",
      description: "A test.",
      logger: pino({ level: "info" }, { write: (line) => lines.push(line) }),
      metrics: new Registry(),
      health: [],
      isReady: () => false,
    });
    logged.get("/1/things", async () => ({}));
    logged.post("/1/things", async () => ({}));
    try {
      for (const url of ["/1/things", "/version", "/healthcheck", "/livez", "/metrics"])
        await logged.inject({ method: "GET", url });
      expect(lines).toEqual([]);
      await logged.inject({ method: "GET", url: "/readyz" });
      await logged.inject({ method: "POST", url: "/1/things" });
    } finally {
      await logged.close();
    }
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { method: "GET", path: "/readyz", status: 503 },
      { method: "POST", path: "/1/things", status: 200 },
    ]);
  });
});
