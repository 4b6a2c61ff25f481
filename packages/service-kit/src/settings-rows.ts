import { z } from "zod";
import { redactText } from "./redact.ts";
import type { Setting } from "./settings.ts";

/** A setting as it is described, each part as text. */
export interface SettingRow {
  env: string;
  file: string;
  /** `required`, `optional`, `has a default` (a secret's), or `default …`. */
  fallback: string;
  /** What it takes. */
  takes: string;
  meaning: string;
}

export function settingRow(setting: Setting, file: string): SettingRow {
  const { env, schema } = setting;
  return {
    env,
    file,
    fallback: fallbackOf(setting),
    takes: setting.takes ?? takesOf(schema),
    meaning: schema.description ?? "",
  };
}

function fallbackOf({ schema, secret, defaultText }: Setting): string {
  const unset = schema.safeParse(undefined);
  if (!unset.success) return "required";
  if (defaultText !== undefined) return `default ${defaultText}`;
  if (unset.data === undefined) return "optional";
  return secret ? "has a default" : `default ${shownDefault(unset.data)}`;
}

function shownDefault(value: unknown): string {
  return typeof value === "string" ? redactText(value) || '""' : JSON.stringify(value);
}

/** The part of a JSON schema that says what a text must be like. */
interface Form {
  type?: string;
  enum?: readonly string[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
}

function takesOf(schema: z.ZodType): string {
  const form = z.toJSONSchema(schema, { io: "output", unrepresentable: "any" }) as Form;
  if (form.enum) return form.enum.join(", ");
  if (form.type === "boolean") return "true or false";
  if (form.type === "integer" || form.type === "number")
    return [form.type === "integer" ? "whole number" : "number", rangeOf(form)].filter(Boolean).join(" ");
  return "text";
}

function rangeOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Form): string {
  const isOpen = maximum === undefined || maximum === Number.MAX_SAFE_INTEGER;
  const from = minimum ?? exclusiveMinimum;
  if (from !== undefined && from !== Number.MIN_SAFE_INTEGER && minimum !== undefined)
    return isOpen ? `from ${minimum}` : `${minimum} to ${maximum}`;
  const parts = [
    exclusiveMinimum === undefined ? "" : `above ${exclusiveMinimum}`,
    exclusiveMaximum === undefined ? "" : `below ${exclusiveMaximum}`,
    isOpen ? "" : `at most ${maximum}`,
  ];
  return parts.filter(Boolean).join(", ");
}
