// Lints openapi/*.yaml, or the files named: the strict rules of @redocly/openapi-core, and LIM's own below. Prints each
// finding with its place; exits 1 where there is an error. Reads these files only.
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { BaseResolver, createConfig, getLineColLocation, lintFromString } from "@redocly/openapi-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/** Nothing is fetched: a document must hold all that it refers to. */
class NoResolver extends BaseResolver {
  loadExternalRef(ref) {
    return Promise.reject(new Error(`refers to ${ref}, outside of the document`));
  }
}

/** Calls `visit` with each operation, its path, its method and its place. */
function eachOperation(document, location, visit) {
  for (const [path, item] of Object.entries(document.paths ?? {}))
    for (const method of methods)
      if (item?.[method]) visit(item[method], { path, method, at: location.child(["paths", path, method]) });
}

const isError = (status) => /^[45]/.test(status);

function hasExample(media, resolve) {
  if (media.example !== undefined || Object.keys(media.examples ?? {}).length > 0) return true;
  const schema = media.schema?.$ref ? resolve(media.schema).node : media.schema;
  return schema?.example !== undefined || (schema?.examples?.length ?? 0) > 0;
}

/** Every operation says what it does and where it belongs. */
const operationComplete = () => ({
  Root(document, { report, location }) {
    eachOperation(document, location, (operation, { at }) => {
      for (const name of ["operationId", "description"])
        if (typeof operation[name] !== "string" || operation[name].trim() === "")
          report({ message: `the operation has no ${name}`, location: at.key() });
      if (!operation.tags?.length) report({ message: "the operation has no tag", location: at.key() });
    });
  },
});

/** Every body in JSON that is sent or comes back on success is shown, by itself or by its component. */
const jsonHasExample = () => ({
  Root(document, { report, location, resolve }) {
    eachOperation(document, location, (operation, { at }) => {
      const json = "application/json";
      const places = [["requestBody", operation.requestBody]];
      for (const [status, response] of Object.entries(operation.responses ?? {}))
        if (status.startsWith("2")) places.push([`responses/${status}`, response]);
      for (const [place, holder] of places) {
        const media = holder?.content?.[json];
        if (media && !hasExample(media, resolve))
          report({
            message: `${place} has no example`,
            location: at.child([...place.split("/"), "content", json]).key(),
          });
      }
    });
  },
});

/** Every operation succeeds somehow; versioned ones say how they fail; all errors have the one form. */
const errorsHaveOneForm = () => ({
  Root(document, { report, location }) {
    eachOperation(document, location, (operation, { path, at }) => {
      const responses = operation.responses ?? {};
      const wanted = path.startsWith("/1/") ? ["400", "500"] : [];
      for (const status of wanted)
        if (!responses[status])
          report({ message: `the operation tells no ${status}`, location: at.child(["responses"]).key() });
      for (const [status, response] of Object.entries(responses)) {
        if (!isError(status) || ((path === "/healthcheck" || path === "/readyz") && status === "503"))
          continue;
        const form = response.content?.["application/json"]?.schema?.$ref;
        if (form !== "#/components/schemas/Error")
          report({
            message: `the error ${status} has not the form of Error`,
            location: at.child(["responses", status]).key(),
          });
      }
    });
  },
});

// Names with the plugin's own: what is passed as an object is not prefixed.
const plugin = {
  id: "lim",
  rules: {
    oas3: {
      "lim/operation-complete": operationComplete,
      "lim/json-has-example": jsonHasExample,
      "lim/errors-have-one-form": errorsHaveOneForm,
    },
  },
};

function rulesFor(text) {
  return {
    // Descriptions are asked for instead, see operation-complete.
    "operation-summary": "off",
    // A service that knows no token has nothing to define.
    "security-defined": /^ {2}securitySchemes:/m.test(text) ? "error" : "off",
    "no-unused-components": "error",
    "no-invalid-media-type-examples": "error",
    "no-invalid-schema-examples": "error",
    "operation-operationId": "error",
    "lim/operation-complete": "error",
    "lim/json-has-example": "error",
    "lim/errors-have-one-form": "error",
  };
}

async function lintFile(file) {
  const source = readFileSync(file, "utf8");
  const config = await createConfig(
    { extends: ["recommended-strict"], rules: rulesFor(source), telemetry: "off" },
    { plugins: [plugin] },
  );
  const problems = await lintFromString({
    source,
    absoluteRef: file,
    config,
    externalRefResolver: new NoResolver(config.resolve),
  });
  return problems
    .filter((problem) => !problem.ignored)
    .map((problem) => {
      const [at] = problem.location.map(getLineColLocation);
      return { ...problem, line: at?.start.line ?? 1, pointer: problem.location[0]?.pointer ?? "" };
    })
    .toSorted((a, b) => a.line - b.line);
}

const files =
  process.argv.length > 2
    ? process.argv.slice(2)
    : globSync("openapi/*.yaml", { cwd: root })
        .toSorted()
        .map((file) => join(root, file));
let errors = 0;
for (const file of files)
  for (const { severity, ruleId, message, line, pointer } of await lintFile(file)) {
    if (severity === "error") errors += 1;
    console.error(`${relative(process.cwd(), file)}:${line}: ${severity} ${ruleId}: ${message} (${pointer})`);
  }
console.log(`openapi: ${files.length} documents linted, ${errors} errors`);
process.exit(errors === 0 && files.length > 0 ? 0 : 1);
