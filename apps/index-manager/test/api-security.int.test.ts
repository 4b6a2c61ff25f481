import { randomUUID } from "node:crypto";
import { request } from "node:http";
import { errorBodySchema } from "@lim/contracts";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { renderOpenApi } from "../src/openapi.ts";
import { type Api, ask, type Method, refusal, startApi, storeWith } from "./api-harness.ts";

let api: Api;

beforeAll(async () => {
  api = await startApi();
});
afterEach(() => api.clear());
afterAll(() => api.close());

const apiToken = "a-token-of-enough-length";
const unguarded = ["/healthcheck", "/livez", "/readyz"];

/** Every operation of the document, with ids in place of parameters. */
async function operations(): Promise<[Method, string][]> {
  const document = parse(await renderOpenApi()) as { paths: Record<string, object> };
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method): [Method, string] => [
      method.toUpperCase() as Method,
      path.replaceAll(/\{[^}]+\}/g, randomUUID()),
    ]),
  );
}

describe("bearer token", () => {
  it("I11: is asked for by every operation but those for health, and none says more without it", async () => {
    const app = await api.app({ apiToken });
    const all = await operations();
    expect(all.length).toBeGreaterThan(15);
    for (const [method, path] of all) {
      if (unguarded.includes(path)) {
        expect((await ask(app, method, path)).status, path).toBe(200);
        continue;
      }
      for (const headers of [{}, { authorization: "Bearer another-token-of-length" }]) {
        const answer = await ask(app, method, path, undefined, headers as Record<string, string>);
        expect(answer.status, `${method} ${path}`).toBe(401);
        expect(errorBodySchema.parse(answer.body).error_code).toBe(26009);
        expect(answer.headers["www-authenticate"]).toMatch(/^Bearer/);
      }
    }
  });

  it("lets in who bears it, and everyone where none is set", async () => {
    const guarded = await api.app({ apiToken });
    const headers = { authorization: `Bearer ${apiToken}` };
    expect((await ask(guarded, "GET", "/1/tasks", undefined, headers)).status).toBe(200);
    expect((await ask(await api.app(), "GET", "/1/tasks")).status).toBe(200);
  });
});

describe("limits and errors", () => {
  it("I11: a body above the limit is refused, and nothing is created", async () => {
    const app = await api.app();
    const payload = { list_id: await api.harness.list(), mode: "x".repeat(100_000) };
    expect((await refusal(app, "POST", "/1/tasks", payload)).slice(0, 2)).toEqual([413, 26003]);
    expect((await ask(app, "GET", "/1/tasks")).body.count).toBe(0);
  });

  it("I11: an address above the limit is refused in the one form", async () => {
    const app = await api.app();
    const url = await app.listen({ host: "127.0.0.1", port: 0 });
    const ids = Array(800).fill(randomUUID()).join();
    const body = await new Promise<string>((resolve, reject) => {
      request(`${url}/1/tasks?task_ids=${ids}`, { agent: false }, (response) => {
        let text = "";
        response.on("data", (chunk) => (text += chunk)).on("end", () => resolve(text));
      })
        .once("error", reject)
        .end();
    });
    expect(errorBodySchema.parse(JSON.parse(body)).error_code).toBe(26003);
  });

  it("an unforeseen failure tells nothing of the inside", async () => {
    const store = storeWith(api.harness.store, {
      find: () => Promise.reject(new TypeError("secret at /some/path")),
    });
    const [status, code, detail] = await refusal(await api.app({ store }), "GET", "/1/tasks");
    expect([status, code]).toEqual([500, 26000]);
    expect(detail).not.toMatch(/secret|path|at /);
  });

  it.each<[Method, string]>([
    ["GET", "/tasks"],
    ["POST", "/1/indexes"],
    ["DELETE", "/1/queue"],
    ["GET", "/2/tasks"],
  ])("%s %s is no operation", async (method, path) => {
    expect((await refusal(await api.app(), method, path)).slice(0, 2)).toEqual([404, 26002]);
  });

  it("echoes the caller's request id, and makes one where it is malformed", async () => {
    const app = await api.app();
    const own = `1700000000,${randomUUID()}`;
    const echoed = await ask(app, "GET", "/1/queue", undefined, { "Luna-Request-Id": own });
    expect(echoed.headers["luna-request-id"]).toBe(own);
    const made = await ask(app, "GET", "/1/queue?x=1", undefined, { "Luna-Request-Id": "1,2" });
    expect(made.headers["luna-request-id"]).toMatch(/^\d+,[0-9a-f-]{36}$/);
  });
});
