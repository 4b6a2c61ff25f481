import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import * as schemas from "../src/api/schemas.ts";
import { renderOpenApi } from "../src/openapi.ts";

interface Schema {
  $ref?: string;
  example?: unknown;
}
interface Operation {
  operationId?: string;
  description?: string;
  tags?: string[];
  parameters?: { name: string; in: string; description?: string; schema: Schema }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, { description?: string; content?: Record<string, { schema: Schema }> }>;
  security?: object[];
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

const document = parse(await renderOpenApi()) as Document;
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ name: `${method} ${path}`, path, operation })),
);
const versioned = operations.filter(({ path }) => path.startsWith("/1/"));

describe("OpenAPI document", () => {
  it("has every operation of version 1, and the unversioned ones", () => {
    expect(document.openapi).toMatch(/^3\.1/);
    expect(operations.map(({ name }) => name).toSorted()).toEqual(
      [
        "delete /1/indexes",
        "delete /1/indexes/{index_id}",
        "delete /1/tasks",
        "delete /1/tasks/{task_id}",
        "get /1/indexes",
        "get /1/indexes/relevant",
        "get /1/master",
        "get /1/plan",
        "get /1/queue",
        "get /1/retention",
        "get /1/tasks",
        "get /1/tasks/{task_id}",
        "get /1/tasks/{task_id}/progress",
        "get /healthcheck",
        "get /livez",
        "get /metrics",
        "get /readyz",
        "get /version",
        "post /1/tasks",
      ].toSorted(),
    );
  });

  it("describes each with an id, a description, a tag, its parameters and its errors", () => {
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(operations.length);
    for (const { name, operation } of operations) {
      expect(operation.operationId, name).toMatch(/^[a-z][a-zA-Z]+$/);
      expect(operation.description, name).toBeTruthy();
      expect(operation.tags, name).toHaveLength(1);
      for (const parameter of operation.parameters ?? [])
        expect(parameter.description, `${name} ${parameter.name}`).toBeTruthy();
    }
    for (const { name, operation } of versioned)
      expect(Object.keys(operation.responses), name).toEqual(expect.arrayContaining(["400", "401", "500"]));
  });

  it("gives an example of every request and of every answer that has a body", () => {
    const exampleOf = (schema: Schema) =>
      document.components.schemas[schema.$ref?.replace("#/components/schemas/", "") ?? ""]?.example;
    for (const { name, operation } of versioned) {
      const bodies = Object.values(operation.requestBody?.content ?? {});
      for (const [status, response] of Object.entries(operation.responses))
        if (status.startsWith("2")) bodies.push(...Object.values(response.content ?? {}));
      for (const { schema } of bodies) expect(exampleOf(schema), name).toBeDefined();
    }
  });

  it("has examples that its own schemas accept", () => {
    const components = [
      schemas.createTaskBody,
      schemas.task,
      schemas.tasks,
      schemas.queue,
      schemas.removedTasks,
      schemas.indexes,
      schemas.removedIndexes,
      schemas.plan,
      schemas.retention,
      schemas.master,
      schemas.progressStream,
    ];
    for (const schema of components) {
      const { id, example } = schema.meta() ?? {};
      expect(schema.safeParse(example).error, id).toBeUndefined();
    }
  });

  it("spells paging one way", () => {
    const paged = versioned.filter(({ operation }) =>
      operation.parameters?.some((parameter) => parameter.name === "cursor"),
    );
    expect(paged.map(({ operation }) => operation.operationId).toSorted()).toEqual(
      ["getIndexes", "getPlan", "getQueue", "getRelevantIndexes", "getTasks"].toSorted(),
    );
    for (const { name, operation } of paged) {
      const limit = operation.parameters?.find((parameter) => parameter.name === "limit");
      expect(limit?.schema, name).toMatchObject({ type: "integer", minimum: 1, default: expect.any(Number) });
    }
  });
});
