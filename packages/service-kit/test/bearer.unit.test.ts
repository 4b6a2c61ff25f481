import { errorBodySchema } from "@lim/contracts";
import type { FastifyInstance, InjectOptions } from "fastify";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { createHttpApp, errorResponses, openApiYaml } from "../src/index.ts";

const token = "s3cret-token-of-this-test";
const bears = { authorization: `Bearer ${token}` };
let app: FastifyInstance;
let lines: string[];
let metrics: Registry;
let handled: number;

async function start(options: { bearerToken?: string | undefined }): Promise<void> {
  lines = [];
  handled = 0;
  metrics = new Registry();
  app = await createHttpApp({
    service: "index-test",
    version: "1.2.3",
    description: "A test.",
    logger: pino({ level: "trace" }, { write: (line) => lines.push(line) }),
    metrics,
    health: [],
    isReady: () => true,
    bodyLimitBytes: 1000,
    ...options,
  });
  app.post(
    "/1/things",
    {
      schema: {
        operationId: "createThing",
        description: "Makes a thing.",
        body: z.strictObject({ name: z.string() }),
        response: errorResponses("bad_input"),
      },
    },
    async () => {
      handled++;
      return {};
    },
  );
}
afterEach(async () => app.close());

describe("a service with a token", () => {
  it.each([
    ["none", {}],
    ["an empty one", { authorization: "" }],
    ["the scheme alone", { authorization: "Bearer" }],
    ["the scheme and a space", { authorization: "Bearer " }],
    ["the token alone", { authorization: token }],
    ["another scheme", { authorization: `Basic ${token}` }],
    ["another token", { authorization: "Bearer another" }],
    ["the beginning of the token", { authorization: `Bearer ${token.slice(0, -1)}` }],
    ["the token and more", { authorization: `Bearer ${token}x` }],
    ["two tokens", { authorization: `Bearer ${token} ${token}` }],
  ])("refuses a request whose Authorization is %s", async (_name, headers) => {
    await start({ bearerToken: token });
    const answer = await app.inject({ method: "POST", url: "/1/things", payload: { name: "a" }, headers });
    expect(answer.statusCode).toBe(401);
    expect(answer.headers["www-authenticate"]).toBe('Bearer realm="lim"');
    expect(answer.headers["luna-request-id"]).toMatch(/^\d+,[0-9a-f-]{36}$/);
    expect(errorBodySchema.parse(answer.json()).error_code).toBe(26009);
    expect(handled).toBe(0);
  });

  it.each(["Bearer", "bearer", "BEARER", "bEARER "])(
    "lets the token in under the scheme %s",
    async (scheme) => {
      await start({ bearerToken: token });
      const headers = { authorization: `${scheme} ${token}` };
      const answer = await app.inject({ method: "POST", url: "/1/things", payload: { name: "a" }, headers });
      expect([answer.statusCode, handled]).toEqual([200, 1]);
    },
  );

  it.each([
    ["an unknown path", { method: "GET", url: "/none" }, 404],
    ["an unknown method", { method: "DELETE", url: "/1/things" }, 404],
    ["an address that cannot be read", { method: "GET", url: "/1/%zz" }, 400],
    ["a body that is no JSON", { method: "POST", url: "/1/things", payload: "{" }, 415],
    ["a body past the limit", { method: "POST", url: "/1/things", payload: { name: "x".repeat(2000) } }, 413],
    ["/docs", { method: "GET", url: "/docs" }, 200],
    ["/docs/json", { method: "GET", url: "/docs/json" }, 200],
    ["/docs/static files", { method: "GET", url: "/docs/static/index.css" }, 200],
    ["/metrics", { method: "GET", url: "/metrics" }, 200],
    ["/version", { method: "GET", url: "/version" }, 200],
    ["HEAD /version", { method: "HEAD", url: "/version" }, 200],
    ["POST /healthcheck", { method: "POST", url: "/healthcheck" }, 404],
    ["/livez/", { method: "GET", url: "/livez/" }, 404],
  ] as const)("asks for it before anything else: %s", async (_name, request, allowed) => {
    await start({ bearerToken: token });
    expect((await app.inject(request as InjectOptions)).statusCode).toBe(401);
    expect((await app.inject({ ...(request as InjectOptions), headers: bears })).statusCode).toBe(allowed);
  });

  it.each(["/healthcheck", "/livez", "/readyz"])("tells its health without: %s", async (url) => {
    await start({ bearerToken: token });
    for (const method of ["GET", "HEAD"] as const)
      expect((await app.inject({ method, url })).statusCode).toBe(200);
  });

  it("writes no token, right or wrong, to the log, the metrics or an answer", async () => {
    await start({ bearerToken: token });
    const wrong = "wr0ng-token-of-this-test";
    const answers = [];
    for (const given of [token, wrong])
      for (const url of ["/1/things", "/none", "/1/%zz"])
        answers.push(
          await app.inject({
            method: "POST",
            url,
            payload: {},
            headers: { authorization: `Bearer ${given}` },
          }),
        );
    expect(lines.length).toBeGreaterThan(0);
    const told = [
      ...lines,
      await metrics.metrics(),
      ...answers.map(({ body, headers }) => body + JSON.stringify(headers)),
    ].join("\n");
    expect(told).not.toContain(token);
    expect(told).not.toContain(wrong);
  });

  it("is not made with an empty token", async () => {
    await expect(start({ bearerToken: "" })).rejects.toMatchObject({ errorName: "bad_settings" });
  });
});

describe("a service without a token", () => {
  it("asks for none", async () => {
    await start({ bearerToken: undefined });
    expect((await app.inject({ method: "POST", url: "/1/things", payload: { name: "a" } })).statusCode).toBe(
      200,
    );
  });
});

interface Operation {
  security?: unknown;
  responses: Record<string, { description: string }>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { securitySchemes?: unknown };
}

describe("the document", () => {
  it("is the same whether a token is set or not", async () => {
    await start({ bearerToken: token });
    const withToken = await openApiYaml(app);
    await app.close();
    await start({ bearerToken: undefined });
    expect(await openApiYaml(app)).toBe(withToken);
    expect(withToken).not.toContain(token);
  });

  it("says of every operation but those for health that a token may be needed, and what comes without it", async () => {
    await start({ bearerToken: undefined });
    const { paths, components } = parse(await openApiYaml(app)) as Document;
    expect(components.securitySchemes).toMatchObject({ bearer: { type: "http", scheme: "bearer" } });
    for (const [path, operations] of Object.entries(paths))
      for (const operation of Object.values(operations)) {
        const open = ["/healthcheck", "/livez", "/readyz"].includes(path);
        expect(operation.security, path).toEqual(open ? [] : [{ bearer: [] }, {}]);
        if (open) expect(operation.responses, path).not.toHaveProperty("401");
        else expect(operation.responses["401"]?.description, path).toContain("26009");
      }
  });

  it("of a service that knows no token speaks of none", async () => {
    await start({});
    const yaml = await openApiYaml(app);
    expect(yaml).not.toMatch(/securitySchemes|"401"|security:/);
  });
});
