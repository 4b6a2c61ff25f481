import { readFileSync } from "node:fs";
import { parse } from "yaml";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface Parameter {
  name: string;
  in: "path" | "query" | "header";
  required: boolean;
  schema: JsonObject;
}

export interface DeclaredResponse {
  description: string;
  /** Media type → schema of the body; empty where the answer has no body. */
  contents: ReadonlyMap<string, JsonObject>;
}

export interface Operation {
  id: string;
  /** Upper case. */
  method: string;
  /** As in the document, with parameters in braces. */
  path: string;
  parameters: readonly Parameter[];
  body: { required: boolean; schema: JsonObject } | undefined;
  responses: ReadonlyMap<number, DeclaredResponse>;
  /** Asks for authorization. */
  secured: boolean;
}

export interface ApiDocument {
  operations: readonly Operation[];
  /** `components.schemas`. */
  schemas: JsonObject;
}

const methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const jsonType = "application/json";

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: Json | undefined): JsonObject {
  return isObject(value) ? value : {};
}

/** Follows local references; what is none stays as it is. Throws where a reference leads nowhere. */
export function dereference(root: JsonObject, node: Json | undefined): JsonObject {
  const ref = objectOf(node).$ref;
  if (typeof ref !== "string") return objectOf(node);
  let at: Json | undefined = root;
  for (const key of ref.replace(/^#\//, "").split("/")) at = objectOf(at)[key];
  if (!isObject(at)) throw new Error(`the document refers to ${ref}, which is not there`);
  return dereference(root, at);
}

/** The parts of an OpenAPI 3.1 document that contract tests rest on. Throws on what they do not know. */
export function readDocument(text: string): ApiDocument {
  const root = parse(text) as JsonObject;
  const operations = Object.entries(objectOf(root.paths)).flatMap(([path, item]) =>
    Object.entries(objectOf(item)).flatMap(([method, node]) => {
      if (!methods.includes(method)) throw new Error(`${path}: ${method} is no method`);
      return [operationOf(root, path, method, objectOf(node))];
    }),
  );
  if (operations.length === 0) throw new Error("the document has no operation");
  return { operations, schemas: objectOf(objectOf(root.components).schemas) };
}

export function loadDocument(): ApiDocument {
  return readDocument(readFileSync(new URL("../../openapi/index-manager.yaml", import.meta.url), "utf8"));
}

function operationOf(root: JsonObject, path: string, method: string, node: JsonObject): Operation {
  const where = `${method.toUpperCase()} ${path}`;
  if (typeof node.operationId !== "string") throw new Error(`${where} has no operationId`);
  const parameters = (Array.isArray(node.parameters) ? node.parameters : []).map((one) =>
    parameterOf(dereference(root, one), where),
  );
  for (const [, name] of path.matchAll(/\{([^}]+)\}/g))
    if (!parameters.some((parameter) => parameter.in === "path" && parameter.name === name))
      throw new Error(`${where} does not declare its path parameter ${name}`);
  const security = node.security ?? root.security;
  return {
    id: node.operationId,
    method: method.toUpperCase(),
    path,
    parameters,
    body: bodyOf(dereference(root, node.requestBody), where),
    responses: responsesOf(root, objectOf(node.responses), where),
    secured: Array.isArray(security) && security.some((one) => Object.keys(objectOf(one)).length > 0),
  };
}

function parameterOf(node: JsonObject, where: string): Parameter {
  const { name, required, schema } = node;
  const place = node.in;
  if (typeof name !== "string" || !isObject(schema)) throw new Error(`${where} has an odd parameter`);
  if (place !== "path" && place !== "query" && place !== "header")
    throw new Error(`${where}: a parameter in ${String(place)} is unknown here`);
  return { name, in: place, required: required === true, schema };
}

function bodyOf(node: JsonObject, where: string): Operation["body"] {
  const content = objectOf(node.content);
  const types = Object.keys(content);
  if (types.length === 0) return undefined;
  const schema = objectOf(content[jsonType]).schema;
  if (types.length > 1 || !isObject(schema))
    throw new Error(`${where}: only bodies of ${jsonType} are known`);
  return { required: node.required === true, schema };
}

function responsesOf(root: JsonObject, node: JsonObject, where: string): Map<number, DeclaredResponse> {
  const responses = new Map<number, DeclaredResponse>();
  for (const [status, value] of Object.entries(node)) {
    if (!/^[1-5]\d\d$/.test(status)) throw new Error(`${where}: status ${status} is unknown here`);
    const response = dereference(root, value);
    const contents = new Map<string, JsonObject>();
    for (const [type, media] of Object.entries(objectOf(response.content)))
      contents.set(type, objectOf(objectOf(media).schema));
    responses.set(Number(status), { description: String(response.description ?? ""), contents });
  }
  if (responses.size === 0) throw new Error(`${where} declares no response`);
  return responses;
}
