import fc from "fast-check";
import { isObject, type Json, type JsonObject } from "./document.ts";
import type { Template } from "./plan.ts";

/** Makes a schema's values. `named` may know better for a property of a name, e.g. ids that exist. */
export type NamedValues = (property: string, schema: JsonObject) => fc.Arbitrary<Template> | undefined;

/** Keywords that say what values there are; a schema with another one is refused, so that none is passed over. */
const knownKeywords = new Set(
  "type const enum anyOf oneOf $ref properties required additionalProperties propertyNames items minItems maxItems minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength pattern format description default example examples title deprecated".split(
    " ",
  ),
);

export interface SchemaContext {
  /** `components.schemas`. */
  schemas: JsonObject;
  named?: NamedValues;
}

/** Values that match the schema. Throws where it says something that is not known here. */
export function valuesOf(schema: JsonObject, context: SchemaContext): fc.Arbitrary<Template> {
  for (const keyword of Object.keys(schema))
    if (!knownKeywords.has(keyword)) throw new Error(`schemas with ${keyword} are not known here`);
  if (typeof schema.$ref === "string") {
    const target = context.schemas[schema.$ref.replace("#/components/schemas/", "")];
    if (!isObject(target)) throw new Error(`${schema.$ref} is not there`);
    return valuesOf(target, context);
  }
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (Array.isArray(schema.enum)) return fc.constantFrom(...schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(choices))
    return fc.oneof(...choices.filter(isObject).map((choice) => valuesOf(choice, context)));
  if (Array.isArray(schema.type))
    return fc.oneof(...schema.type.map((type) => valuesOf({ ...schema, type }, context)));
  switch (schema.type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer":
      return fc.integer(rangeOf(schema, { min: -(2 ** 31), max: 2 ** 31 - 1 }));
    case "number":
      return fc.double({ ...rangeOf(schema, { min: -1e9, max: 1e9 }), noNaN: true });
    case "string":
      return stringsOf(schema);
    case "array":
      return fc.array(valuesOf(objectAt(schema, "items"), context), {
        minLength: numberAt(schema, "minItems") ?? 0,
        maxLength: numberAt(schema, "maxItems") ?? 10,
      });
    case "object":
      return objectsOf(schema, context);
    default:
      throw new Error(`schemas of type ${String(schema.type)} are not known here`);
  }
}

function numberAt(schema: JsonObject, keyword: string): number | undefined {
  const value = schema[keyword];
  return typeof value === "number" ? value : undefined;
}

function objectAt(schema: JsonObject, keyword: string): JsonObject {
  const value = schema[keyword];
  if (!isObject(value)) throw new Error(`${keyword} is missing`);
  return value;
}

function rangeOf(schema: JsonObject, otherwise: { min: number; max: number }): { min: number; max: number } {
  const above = numberAt(schema, "exclusiveMinimum");
  const below = numberAt(schema, "exclusiveMaximum");
  const min = numberAt(schema, "minimum") ?? (above === undefined ? undefined : above + 1) ?? otherwise.min;
  const max = numberAt(schema, "maximum") ?? (below === undefined ? undefined : below - 1) ?? otherwise.max;
  return { min, max: Math.max(min, max) };
}

function stringsOf(schema: JsonObject): fc.Arbitrary<string> {
  const minLength = numberAt(schema, "minLength") ?? 0;
  const maxLength = numberAt(schema, "maxLength") ?? minLength + 64;
  if (typeof schema.pattern === "string") {
    const isShort = (text: string) =>
      text.length >= minLength && (schema.maxLength === undefined || text.length <= maxLength);
    return textsMatching(schema.pattern).filter(isShort);
  }
  if (schema.format === "date-time") return dateTimes;
  if (schema.format === "uuid") return fc.uuid();
  if (schema.format !== undefined)
    throw new Error(`strings of format ${String(schema.format)} are not known here`);
  return fc.string({ minLength, maxLength });
}

/** What stands for all characters where a pattern says which ones it does not take. */
const sampleCharacters = [
  ...Array.from({ length: 95 }, (_, i) => String.fromCodePoint(0x20 + i)),
  "\u00a0",
  "é",
  "中",
  "😀",
];

/** The pattern with every class of "all but these" as a class of a few: the whole of Unicode takes seconds to prepare. */
function withSmallClasses(pattern: string): string {
  return pattern.replace(/\[\^(?:\\.|[^\]\\])*\]/g, (all) => {
    const fits = new RegExp(`^${all}$`, "u");
    const taken = sampleCharacters.filter((character) => fits.test(character));
    return `[${taken.map((character) => `\\u{${character.codePointAt(0)?.toString(16)}}`).join("")}]`;
  });
}

const byPattern = new Map<string, fc.Arbitrary<string>>();

/** Kept by pattern: the same ones come again and again. */
function textsMatching(pattern: string): fc.Arbitrary<string> {
  const known = byPattern.get(pattern) ?? fc.stringMatching(new RegExp(withSmallClasses(pattern), "u"));
  byPattern.set(pattern, known);
  return known;
}

/** Text of any script, made once for the same reason. */
export const anyText: fc.Arbitrary<string> = fc.string({ unit: "grapheme", maxLength: 40 });

/** RFC 3339 in UTC, of years that everything knows. */
export const dateTimes: fc.Arbitrary<string> = fc
  .date({ min: new Date("1971-01-01T00:00:00Z"), max: new Date("2199-12-31T00:00:00Z"), noInvalidDate: true })
  .map((date) => date.toISOString());

function objectsOf(schema: JsonObject, context: SchemaContext): fc.Arbitrary<Template> {
  const model: Record<string, fc.Arbitrary<Template>> = {};
  const properties = isObject(schema.properties) ? schema.properties : {};
  for (const [name, property] of Object.entries(properties))
    if (isObject(property)) model[name] = context.named?.(name, property) ?? valuesOf(property, context);
  const required = Array.isArray(schema.required) ? schema.required.map(String) : [];
  return fc.record(model, { requiredKeys: required.filter((name) => name in model) });
}

/** A query's text as the value that the schema speaks of. Only plain spellings of numbers are numbers. */
export function valueOfText(schema: JsonObject, text: string): Json {
  if (schema.type === "integer" || schema.type === "number")
    return /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/.test(text) ? Number(text) : text;
  if (schema.type === "boolean") return text === "true" ? true : text === "false" ? false : text;
  return text;
}
