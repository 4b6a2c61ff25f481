import { z } from "zod";
import { LimError } from "./errors.ts";

/** Lower-case canonical UUID text. Upper case is accepted and folded, so that ids compare as strings everywhere. */
export const uuidSchema = z
  .string()
  .regex(/^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$/, "must be a UUID")
  .toLowerCase();

export const uuidBytes = 16;

const uuidChars = 36;
const dash = 0x2d;
const hexCodes = Buffer.from("0123456789abcdef");
/** Where in the text each of the bytes begins. */
const textOffsets = Uint8Array.of(0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34);
/** The text being made: one string made of bytes costs a fifth of one put together from pieces. */
const scratch = Buffer.alloc(uuidChars, dash);

/** Writes a UUID's 16 bytes (network order, as Postgres does) at `offset`. Throws `bad_input` on other text. */
export function writeUuid(text: string, target: Uint8Array, offset = 0): void {
  const hex = text.replaceAll("-", "");
  if (!/^[0-9a-fA-F]{32}$/.test(hex)) throw new LimError("bad_input", `"${text}" is not a UUID`);
  for (let i = 0; i < uuidBytes; i++) target[offset + i] = Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16);
}

/** UUID text of the 16 bytes at `offset`. */
export function readUuid(source: Uint8Array, offset = 0): string {
  for (let i = 0; i < uuidBytes; i++) {
    const byte = source[offset + i] ?? 0;
    const at = textOffsets[i] as number;
    scratch[at] = hexCodes[byte >> 4] as number;
    scratch[at + 1] = hexCodes[byte & 15] as number;
  }
  return scratch.toString("latin1");
}
