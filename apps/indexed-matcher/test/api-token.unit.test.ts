import { createLogger, Registry as MetricRegistry } from "@lim/service-kit";
import { expect, it } from "vitest";
import { buildApp } from "../src/app.ts";
import { Registry } from "../src/registry.ts";

const apiToken = "a-token-of-enough-length";

const appWith = (token: string | undefined) =>
  buildApp({
    registry: new Registry(),
    matcherId: () => "10.0.0.7:5200",
    memory: () => undefined,
    logger: createLogger({ service: "indexed-matcher", level: "silent" }),
    apiToken: token,
    metrics: new MetricRegistry(),
    health: [],
    isReady: () => true,
  });

it("the token is asked for by every operation but those for health", async () => {
  const app = await appWith(apiToken);
  const status = async (url: string, headers = {}) => (await app.inject({ url, headers })).statusCode;
  for (const url of ["/indexes", "/metrics", "/version"]) {
    expect(await status(url), url).toBe(401);
    expect(await status(url, { authorization: `Bearer ${apiToken}x` }), url).toBe(401);
    expect(await status(url, { authorization: `Bearer ${apiToken}` }), url).toBe(200);
  }
  for (const url of ["/healthcheck", "/livez", "/readyz"]) expect(await status(url), url).toBe(200);
  await app.close();
  const open = await appWith(undefined);
  expect((await open.inject("/indexes")).statusCode).toBe(200);
  await open.close();
});
