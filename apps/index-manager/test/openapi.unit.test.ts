import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { renderOpenApi } from "../src/openapi.ts";

interface Operation {
  operationId?: string;
  description?: string;
  tags?: string[];
  responses: Record<string, { description?: string }>;
}

describe("OpenAPI document", () => {
  it("describes every operation with an id, a description, a tag and its errors, without connecting anywhere", async () => {
    const document = parse(await renderOpenApi()) as {
      openapi: string;
      paths: Record<string, Record<string, Operation>>;
    };
    expect(document.openapi).toMatch(/^3\.1/);
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ name: `${method} ${path}`, path, operation })),
    );
    expect(operations.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        "post /1/tasks",
        "get /1/queue",
        "get /1/indexes/relevant",
        "get /healthcheck",
      ]),
    );
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(operations.length);
    for (const { name, path, operation } of operations) {
      expect(operation.operationId, name).toBeTruthy();
      expect(operation.description, name).toBeTruthy();
      expect(operation.tags, name).toHaveLength(1);
      if (path.startsWith("/1/"))
        expect(Object.keys(operation.responses), name).toEqual(expect.arrayContaining(["400", "500"]));
    }
  });
});
