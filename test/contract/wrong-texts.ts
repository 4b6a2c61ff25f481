import fc from "fast-check";
import { anyText, valueOfText } from "./arbitraries.ts";
import type { Operation, Parameter } from "./document.ts";
import { domainOf } from "./domains.ts";
import type { Text } from "./plan.ts";
import type { Validators } from "./schemas.ts";

const longText = "a".repeat(3_000);

/** Texts that are wrong for one type or another; the schema says for which. */
const anyTexts = [
  "",
  " ",
  "abc",
  "null",
  "undefined",
  "true ",
  "TRUE",
  "1",
  "yes",
  "NaN",
  "Infinity",
  "-1",
  "0",
  "-0",
  "1.5",
  " 5",
  "5 ",
  "+5",
  "1e2",
  "0x10",
  "0b1",
  "1_000",
  "1,000",
  "99999999999999999999",
  "1e999",
  "١",
  "５",
  "[]",
  "{}",
  "[object Object]",
  "__proto__",
  "constructor",
  "' OR '1'='1",
  "*",
  "../../../etc/passwd",
  "..\\..\\x",
  "%00",
  "\u0000",
  "a\u0000b",
  "\r\nX-Injected: 1",
  "\u0007\u001b[31m",
  "\u202Eabc",
  "😀",
  "ﬀ",
  longText,
  "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c1",
  "5f0b1b0e8a1f4f0e9d0c0d1f6f0a7c11",
  "{5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11}",
  "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c1g",
  "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11 ",
  "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11\n",
  "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11,",
  ",5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11",
  "pending,",
  "pending,,error",
  "pending;error",
  "Pending",
  "2026-11-21",
  "2026-11-21T10:00:00",
  "2026-11-21 10:00:00Z",
  "2026-11-21T25:00:00Z",
  "2026-02-30T00:00:00Z",
  "2026-11-21T10:00:00+5",
  "2026-11-21T10:00:00.Z",
  "+012026-11-21T10:00:00Z",
  "1763719200000",
  "now",
  "http://",
  "ftp://host",
  "http://host:99999",
  "http://user:secret@host",
];

/** Texts that the document does not allow for the parameter; undefined where it allows all. */
export function wrongTexts(
  operation: Operation,
  parameter: Parameter,
  validators: Validators,
): fc.Arbitrary<Text> | undefined {
  const { schema } = parameter;
  const domain = domainOf(operation, parameter);
  const isWrong = (text: string) =>
    validators.requestFault(schema, valueOfText(schema, text)) !== undefined && canBeSent(parameter, text);
  const known = [...anyTexts, ...boundsOf(schema)].filter(isWrong);
  const choices: fc.Arbitrary<Text>[] = [];
  if (known.length > 0) choices.push(fc.constantFrom(...known).map((text): Text => [text]));
  // Almost any text is wrong for a schema that refuses most of the known ones.
  if (known.length > anyTexts.length / 2) choices.push(anyText.filter(isWrong).map((text): Text => [text]));
  if (domain?.wrong) choices.push(domain.wrong);
  return choices.length > 0 ? fc.oneof(...choices) : undefined;
}

function boundsOf(schema: Parameter["schema"]): string[] {
  const texts: string[] = [];
  if (typeof schema.minimum === "number") texts.push(String(schema.minimum - 1));
  if (typeof schema.maximum === "number") texts.push(String(schema.maximum + 1));
  if (typeof schema.maxLength === "number") texts.push("a".repeat(schema.maxLength + 1));
  return texts;
}

/** An empty path parameter is another path; headers carry visible latin1, trimmed. */
function canBeSent(parameter: Parameter, text: string): boolean {
  if (parameter.in === "path") return text !== "" && text !== "." && text !== "..";
  if (parameter.in === "header") return /^[\x20-\x7e\xa0-\xff]*$/.test(text) && text.trim() === text;
  return true;
}
