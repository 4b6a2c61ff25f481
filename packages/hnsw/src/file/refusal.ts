import { HnswError } from "../errors.ts";

/** Why a file is refused: the first words of the error's message. */
export type Refusal =
  | "not an index"
  | "not a file of rows"
  | "too new"
  | "too old"
  | "truncated"
  | "extended"
  | "corrupt"
  | "inconsistent"
  | "rows";

export const refusal = (why: Refusal, detail?: string): HnswError =>
  new HnswError("refused", detail === undefined ? why : `${why}: ${detail}`);

/** What assembly/validate.ts returns, in words. */
const rules = [
  "",
  "a link leads outside the index",
  "a link leads to a free slot",
  "a slot links to itself",
  "a link is there twice",
  "a list of links goes on after its end",
  "a link leads to a slot that is not on its level",
  "a scale is not a positive number, or too large",
  "a squared norm is not a number, or negative",
  "a free slot has links",
];

export const brokenRule = (rule: number, slot: number): HnswError =>
  refusal("inconsistent", `${rules[rule] ?? `rule ${rule}`} (slot ${slot})`);
