import { randomUUID } from "node:crypto";
import { fillTemplate, fillText, type Plan, type Pools, type Text } from "./plan.ts";
import { requestIdHeader } from "./requests.ts";

/** A request as it goes over the wire. */
export interface Wire {
  method: string;
  /** Path and query, latin1. */
  target: string;
  headers: readonly (readonly [name: string, value: string])[];
  body: Uint8Array | undefined;
}

export interface RenderContext {
  pools: Pools;
  token: string;
}

export function render(plan: Plan, { pools, token }: RenderContext): Wire {
  // A cursor that nobody has yet can be left out of a good request; a faulty one needs its fault.
  const textOf = (text: Text) =>
    fillText(text, pools) ?? (plan.expect.outcome === "accepted" ? undefined : randomUUID());
  const headers: [string, string][] = [];
  for (const { name, value } of plan.headers) {
    const text = textOf(value);
    if (text !== undefined) headers.push([name, text]);
  }
  if (plan.authorization.kind === "token") headers.push(["Authorization", `Bearer ${token}`]);
  if (plan.authorization.kind === "raw") headers.push(["Authorization", plan.authorization.value]);
  if (plan.requestId !== undefined) headers.push([requestIdHeader, plan.requestId]);
  const body = bodyOf(plan, pools);
  if (plan.body?.contentType !== undefined) headers.push(["Content-Type", plan.body.contentType]);
  return { method: plan.method, target: targetOf(plan, textOf), headers, body };
}

function bodyOf({ body }: Plan, pools: Pools): Uint8Array | undefined {
  if (!body) return undefined;
  if (body.kind === "bytes") return body.bytes;
  return new TextEncoder().encode(JSON.stringify(fillTemplate(body.value, pools)));
}

/** Percent-encoded; half a surrogate pair becomes the replacement character. */
const encoded = (text: string): string => encodeURIComponent(text.toWellFormed());

function targetOf(plan: Plan, textOf: (text: Text) => string | undefined): string {
  const path =
    plan.rawPath ??
    plan.path.replace(/\{([^}]+)\}/g, (_, name: string) =>
      encoded(fillPath(plan.pathValues[name] ?? [], textOf)),
    );
  const pairs: string[] = [];
  for (const { name, value } of plan.query) {
    const text = textOf(value);
    if (text !== undefined) pairs.push(`${encoded(name)}=${encoded(text)}`);
  }
  if (plan.rawQuery !== undefined) pairs.push(plan.rawQuery);
  return pairs.length > 0 ? `${path}?${pairs.join("&")}` : path;
}

/** A path is never without its parameter: where there is nothing yet, it names nothing. */
function fillPath(text: Text, textOf: (text: Text) => string | undefined): string {
  return textOf(text) ?? randomUUID();
}

const maxQuotedBytes = 2_000;

/** As a command line; the address and the token come from the environment of who runs it. */
export function curlOf(wire: Wire, token: string): string {
  const quote = (text: string) =>
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must be written in another way
    /[\u0000-\u001f\u007f-\uffff]/.test(text)
      ? `$'${text.replace(/[\\']/g, "\\$&").replace(/[^\x20-\x7e]/gu, escaped)}'`
      : `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl", "-i", "--path-as-is", "--globoff", "-X", quote(wire.method)];
  for (const [name, value] of wire.headers)
    parts.push(
      "-H",
      value === `Bearer ${token}`
        ? `"${name}: Bearer $LIM_API_TOKEN"`
        : quote(value === "" ? `${name};` : `${name}: ${value}`),
    );
  if (wire.body) {
    const text = Buffer.from(wire.body.subarray(0, maxQuotedBytes)).toString("latin1");
    const cut = wire.body.length > maxQuotedBytes ? ` # cut, ${wire.body.length} bytes in all` : "";
    return `${[...parts, `"$LIM_URL"${quote(wire.target)}`, "--data-binary", quote(text)].join(" ")}${cut}`;
  }
  return [...parts, `"$LIM_URL"${quote(wire.target)}`].join(" ");
}

function escaped(character: string): string {
  return [...Buffer.from(character, "latin1")]
    .map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`)
    .join("");
}
