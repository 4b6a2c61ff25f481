import { randomUUID } from "node:crypto";

export const requestIdHeader = "Luna-Request-Id";
const wellFormed = /^\d{1,12},[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The caller's `<unix seconds>,<uuid>` where it is well-formed, else a new one. */
export function requestIdOf(header: string | string[] | undefined): string {
  if (typeof header === "string" && wellFormed.test(header)) return header;
  return `${Math.floor(Date.now() / 1000)},${randomUUID()}`;
}
