import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

export const requestIdHeader = "Luna-Request-Id";
/** What proxies and other platforms call theirs; it may look like anything sane. */
export const otherRequestIdHeader = "X-Request-Id";

const wellFormed = /^\d{1,12},[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** Nothing that could end a header or a log field, or is longer than ids are. */
const sane = /^[A-Za-z0-9._~:,=+/@-]{1,128}$/;

/** The caller's `<unix seconds>,<uuid>` where it is well-formed, else a new one. */
export function requestIdOf(header: string | string[] | undefined): string {
  if (typeof header === "string" && wellFormed.test(header)) return header;
  return `${Math.floor(Date.now() / 1000)},${randomUUID()}`;
}

/** The caller's X-Request-Id; undefined where there is none, or one that is not fit to be answered and logged. */
export function otherRequestIdOf(headers: IncomingHttpHeaders): string | undefined {
  const given = headers[otherRequestIdHeader.toLowerCase()];
  return typeof given === "string" && sane.test(given) ? given : undefined;
}
