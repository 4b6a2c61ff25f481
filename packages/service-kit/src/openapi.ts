import type { FastifyInstance } from "fastify";
import { jsonSchemaTransformObject } from "fastify-type-provider-zod";

type JsonObject = Record<string, unknown>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refsIn(value: unknown, found: Set<string>): void {
  if (Array.isArray(value)) for (const item of value) refsIn(item, found);
  if (!isObject(value)) return;
  for (const [key, child] of Object.entries(value)) {
    if (key === "$ref" && typeof child === "string") found.add(child.replace("#/components/schemas/", ""));
    else refsIn(child, found);
  }
}

/** Schemas that something reachable from `paths` refers to; zod registers an input and an output form of each. */
function referencedSchemas(paths: unknown, schemas: JsonObject): JsonObject {
  const reached = new Set<string>();
  let frontier = new Set<string>();
  refsIn(paths, frontier);
  while (frontier.size > 0) {
    const next = new Set<string>();
    for (const name of frontier) {
      reached.add(name);
      refsIn(schemas[name], next);
    }
    frontier = new Set([...next].filter((name) => !reached.has(name)));
  }
  return sorted(Object.fromEntries(Object.entries(schemas).filter(([name]) => reached.has(name))));
}

function sorted(object: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(object).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * zod's provider names the input form of schema X "XInput". Where only that form is used, it gets the plain name.
 */
function withPlainNames(document: { paths: unknown; components: { schemas: JsonObject } }): typeof document {
  const names = new Set(Object.keys(document.components.schemas));
  let text = JSON.stringify(document);
  for (const name of names) {
    const plain = name.replace(/Input$/, "");
    if (plain === name || names.has(plain)) continue;
    text = text
      .replaceAll(`"#/components/schemas/${name}"`, `"#/components/schemas/${plain}"`)
      .replace(`"${name}":`, `"${plain}":`);
  }
  return JSON.parse(text) as typeof document;
}

/** Components without the unused ones; paths and components in alphabetical order, so that a diff shows changes only. */
export const transformObject: typeof jsonSchemaTransformObject = (input) => {
  const document = jsonSchemaTransformObject(input) as unknown as {
    paths?: JsonObject;
    components?: { schemas?: JsonObject; securitySchemes?: JsonObject };
  };
  const { paths, components } = withPlainNames({
    paths: sorted(document.paths ?? {}),
    components: { schemas: referencedSchemas(document.paths, document.components?.schemas ?? {}) },
  });
  return {
    ...document,
    paths,
    components: { ...document.components, schemas: sorted(components.schemas) },
  } as unknown as ReturnType<typeof jsonSchemaTransformObject>;
};

/** The OpenAPI document of an app as YAML, stable in order. Readies the app; connects nowhere. */
export async function openApiYaml(app: FastifyInstance): Promise<string> {
  await app.ready();
  return app.swagger({ yaml: true });
}
