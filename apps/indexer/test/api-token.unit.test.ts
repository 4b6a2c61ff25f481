import { randomUUID } from "node:crypto";
import { createLogger, Registry } from "@lim/service-kit";
import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, expect, it } from "vitest";
import { parse } from "yaml";
import { buildApp } from "../src/app.ts";
import { createIndexer } from "../src/indexer.ts";
import { renderOpenApi } from "../src/openapi.ts";

const apiToken = "a-token-of-enough-length";
const open = ["/healthcheck", "/livez", "/readyz"];
let app: FastifyInstance;

beforeAll(async () => {
  app = await buildApp({
    indexer: createIndexer({
      bootId: randomUUID(),
      startBuild: () => expect.unreachable("nobody without the token begins a build"),
      afterBuild: async (_request, end) => end,
      onEnd() {},
      now: () => new Date(0),
    }),
    logger: createLogger({ service: "indexer", level: "silent" }),
    apiToken,
    metrics: new Registry(),
    health: [],
    isReady: () => true,
  });
});
afterAll(() => app.close());

it("the token is asked for by every operation but those for health, as the document says", async () => {
  const document = parse(await renderOpenApi()) as {
    paths: Record<string, Record<string, { security: unknown[] }>>;
  };
  const asked: string[] = [];
  for (const [url, methods] of Object.entries(document.paths))
    for (const [name, { security }] of Object.entries(methods)) {
      const method = name.toUpperCase() as "GET" | "POST";
      const without = await app.inject({ method, url });
      const wrong = await app.inject({ method, url, headers: { authorization: `Bearer ${apiToken}x` } });
      const codes = [without.statusCode, wrong.statusCode];
      expect(codes, url).toEqual(open.includes(url) ? [200, 200] : [401, 401]);
      expect(security, url).toEqual(open.includes(url) ? [] : [{ bearer: [] }, {}]);
      asked.push(url);
    }
  expect(asked).toEqual(expect.arrayContaining(["/state", "/index_list", "/stop", "/metrics", ...open]));
});

it("who bears it is answered", async () => {
  const headers = { authorization: `Bearer ${apiToken}` };
  expect((await app.inject({ url: "/state", headers })).json()).toMatchObject({ state: "idle" });
  const stop = { task_id: randomUUID(), attempt: 1, epoch: 1 };
  const answer = await app.inject({ method: "POST", url: "/stop", headers, payload: stop });
  expect(answer.statusCode).toBe(404);
});
