import { z } from "zod";
import { LimError } from "./errors.ts";

/** Lower-case canonical UUID text. Upper case is accepted and folded, so that ids compare as strings everywhere. */
export const uuidSchema = z
  .string()
  .regex(/^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$/, "must be a UUID")
  .toLowerCase();

export const uuidBytes = 16;

const hexOfByte = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Writes a UUID's 16 bytes (network order, as Postgres does) at `offset`. Throws `bad_input` on other text. */
export function writeUuid(text: string, target: Uint8Array, offset = 0): void {
  const hex = text.replaceAll("-", "");
  if (!/^[0-9a-fA-F]{32}$/.test(hex)) throw new LimError("bad_input", `"${text}" is not a UUID`);
  for (let i = 0; i < uuidBytes; i++) target[offset + i] = Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16);
}

/** UUID text of the 16 bytes at `offset`. */
export function readUuid(source: Uint8Array, offset = 0): string {
  let text = "";
  for (let i = 0; i < uuidBytes; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += "-";
    text += hexOfByte[source[offset + i] ?? 0];
  }
  return text;
}
