import { expect, it } from "vitest";
import { parse } from "yaml";
import { renderOpenApi } from "../src/openapi.ts";

interface Document {
  openapi: string;
  paths: Record<string, Record<string, { operationId: string; responses: Record<string, unknown> }>>;
}

it("the OpenAPI document names every operation with its refusals, the same at every rendering", async () => {
  const yaml = await renderOpenApi();
  expect(await renderOpenApi()).toBe(yaml);
  const document = parse(yaml) as Document;
  expect(document.openapi).toBe("3.1.1");
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId, responses }]) => [
      `${method} ${path}`,
      operationId,
      Object.keys(responses).join(),
    ]),
  );
  expect(operations).toEqual(
    expect.arrayContaining([
      ["get /state", "getState", "200,400,401,413,431,500,503"],
      ["post /index_list", "indexList", "202,400,401,409,413,415,431,500,503"],
      ["post /stop", "stopBuild", "200,400,401,404,409,413,415,431,500,503"],
      ["get /healthcheck", "getHealth", "200,400,413,431,500,503"],
    ]),
  );
});
