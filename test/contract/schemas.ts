import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { type ApiDocument, isObject, type Json, type JsonObject } from "./document.ts";

export interface Validators {
  /** Why the value does not match, undefined where it does. Objects take additional properties where the document says so. */
  requestFault(schema: JsonObject, value: unknown): string | undefined;
  /** The same for answers: what the document does not name is a fault. */
  responseFault(schema: JsonObject, value: unknown): string | undefined;
}

const componentsId = "components";
/** Faults quoted of one value. */
const quotedFaults = 3;

/** Annotations of OpenAPI and zod that say nothing about values. */
const annotations = ["example", "externalDocs", "discriminator", "xml"];

/** References point into one shared schema; with `closed`, an object that names its properties has no others. */
function prepared(value: Json, closed: boolean): Json {
  if (Array.isArray(value)) return value.map((item) => prepared(item, closed));
  if (!isObject(value)) return value;
  const copy: JsonObject = {};
  for (const [key, child] of Object.entries(value)) {
    copy[key] =
      key === "$ref" && typeof child === "string"
        ? child.replace("#/components/schemas/", `${componentsId}#/$defs/`)
        : prepared(child, closed);
  }
  if (closed && isObject(copy.properties) && copy.additionalProperties === undefined)
    copy.additionalProperties = false;
  return copy;
}

function createAjv(document: ApiDocument, closed: boolean): Ajv2020 {
  const ajv = new Ajv2020({
    allErrors: true,
    strictTypes: false,
    strictRequired: false,
    validateFormats: true,
  });
  // Declared as CommonJS: the plugin is the default export of the default export for the compiler only.
  (formats as unknown as (ajv: Ajv2020) => void)(ajv);
  ajv.addVocabulary(annotations);
  ajv.addSchema({ $id: componentsId, $defs: prepared(document.schemas, closed) as object });
  return ajv;
}

export function createValidators(document: ApiDocument): Validators {
  const faultFinder = (closed: boolean) => {
    const ajv = createAjv(document, closed);
    const compiled = new WeakMap<JsonObject, ValidateFunction>();
    return (schema: JsonObject, value: unknown): string | undefined => {
      let validate = compiled.get(schema);
      if (!validate) {
        validate = ajv.compile(prepared(schema, closed) as object);
        compiled.set(schema, validate);
      }
      if (validate(value)) return undefined;
      return (validate.errors ?? [])
        .slice(0, quotedFaults)
        .map(
          ({ instancePath, message, params }) =>
            `${instancePath || "/"} ${message} ${JSON.stringify(params)}`,
        )
        .join("; ");
    };
  };
  return { requestFault: faultFinder(false), responseFault: faultFinder(true) };
}
