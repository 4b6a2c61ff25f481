import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Registry } from "prom-client";
import { afterAll, beforeAll, expect, it } from "vitest";
import { parse, stringify } from "yaml";
import { z } from "zod";
import { createHttpApp, createLogger, errorResponses, openApiYaml } from "../src/index.ts";

interface Media {
  example?: unknown;
  schema: { $ref?: string; type?: string };
}
interface Operation {
  operationId?: string;
  description?: string;
  tags?: string[];
  security?: unknown[];
  requestBody: { content: Record<string, Media> };
  responses: Record<string, { content: Record<string, Media> }>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Record<string, unknown>> };
}

const script = new URL("../../../scripts/lint-openapi.mjs", import.meta.url).pathname;
const json = "application/json";

/** What is done to a faultless document, and what the linter must say of it. */
const cases: [string, (operation: Operation, document: Document) => void, RegExp | undefined][] = [
  ["nothing", () => {}, undefined],
  ["no operationId", (operation) => delete operation.operationId, /operationId/],
  ["no description", (operation) => delete operation.description, /lim\/operation-complete.*no description/],
  ["no tag", (operation) => (operation.tags = []), /lim\/operation-complete.*no tag/],
  ["no security", (operation) => delete operation.security, /security-defined/],
  [
    "no example",
    (_, { components }) => delete components.schemas.LintedThingInput?.example,
    /lim\/json-has-example: requestBody/,
  ],
  [
    "an example of another form",
    (_, { components }) => Object.assign(components.schemas.LintedThing ?? {}, { example: { name: 1 } }),
    /no-invalid-schema-examples/,
  ],
  [
    "an example of another form in its place",
    (operation) => Object.assign(operation.requestBody.content[json] ?? {}, { example: {} }),
    /no-invalid-media-type-examples/,
  ],
  ["no success", (operation) => delete operation.responses["201"], /operation-2xx-response/],
  ["no 400", (operation) => delete operation.responses["400"], /lim\/errors-have-one-form.*no 400/],
  ["no 500", (operation) => delete operation.responses["500"], /lim\/errors-have-one-form.*no 500/],
  [
    "an error of another form",
    (operation) =>
      Object.assign(operation.responses["409"]?.content[json] ?? {}, { schema: { type: "object" } }),
    /lim\/errors-have-one-form.*409/,
  ],
  [
    "an unused component",
    (_, { components }) => (components.schemas.Unused = { type: "object" }),
    /no-unused-components/,
  ],
  [
    "a component elsewhere",
    (operation) =>
      Object.assign(operation.requestBody.content[json] ?? {}, {
        schema: { $ref: "http://lint.invalid/a.json" },
      }),
    /no-unresolved-refs.*outside/,
  ],
];

let folder: string;
let said: string[];
let status: number | null;

beforeAll(async () => {
  const app = await createHttpApp({
    service: "index-test",
    version: "1.2.3",
    description: "A test.",
    logger: createLogger({ service: "index-test", level: "silent" }),
    metrics: new Registry(),
    health: [],
    isReady: () => true,
    bearerToken: undefined,
  });
  const thing = z.strictObject({ name: z.string() }).meta({ id: "LintedThing", example: { name: "a" } });
  const description = "Made";
  app.post(
    "/1/things",
    {
      schema: {
        operationId: "createThing",
        description: "Makes a thing.",
        tags: ["things"],
        body: thing,
        response: {
          201: { description, content: { [json]: { schema: thing } } },
          ...errorResponses("indexer_busy"),
        },
      },
    },
    async () => ({ name: "a" }),
  );
  const yaml = await openApiYaml(app);
  await app.close();
  folder = mkdtempSync(join(tmpdir(), "lim-lint-"));
  const files = cases.map(([, change], index) => {
    const document = parse(yaml) as Document;
    const operation = document.paths["/1/things"]?.post;
    if (!operation) throw new Error("the document lacks the operation");
    change(operation, document);
    const file = join(folder, `${index}-.yaml`);
    writeFileSync(file, stringify(document, { aliasDuplicateObjects: false }));
    return file;
  });
  const run = spawnSync(process.execPath, [script, ...files], { cwd: folder, encoding: "utf8" });
  status = run.status;
  said = run.stderr.split("\n");
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true }));

it.each(cases.map(([name, , finding], index) => [name, finding, index] as const))(
  "the linter says of a document with %s what is wrong, and where",
  (_name, finding, index) => {
    const lines = said.filter((line) => line.startsWith(`${index}-.yaml:`));
    if (finding === undefined) expect(lines).toEqual([]);
    else expect(lines.join("\n")).toMatch(finding);
    for (const line of lines) expect(line).toMatch(/^\d+-\.yaml:\d+: error /);
  },
);

it("the linter fails where there is a fault", () => expect(status).toBe(1));
