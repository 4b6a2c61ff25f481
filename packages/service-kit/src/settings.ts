import { LimError } from "@lim/contracts";
import type { z } from "zod";

export interface Setting {
  /** Environment variable. */
  env: string;
  /** Path in the settings file, e.g. `rebuild_rules.default`; without it the variable's name in lower case. */
  file?: string;
  schema: z.ZodType;
  /** Its value appears in no message, default included. */
  secret?: boolean;
  /** An empty variable is the value ""; without this it counts as unset, as compose files write it. */
  allowEmpty?: boolean;
  /** Its default as one would write it, where the schema turns text into something else. */
  defaultText?: string;
}

/** An address as it may be shown: without user and password. */
export function redactUrl(text: string): string {
  return text.replace(/(^[a-z][a-z0-9+.-]*:\/\/)[^/?#]*@/i, "$1***@");
}

const maxShownChars = 200;

function shown(setting: Setting, raw: string): string {
  if (setting.secret) return "(secret, not shown)";
  return JSON.stringify(redactUrl(raw).slice(0, maxShownChars));
}

function faultsOf(setting: Setting, raw: string | undefined, error: z.ZodError): string[] {
  if (raw === undefined) return [`${setting.env}: is required and not set`];
  return error.issues.map((issue) => {
    const place = issue.path.length > 0 ? ` at ${issue.path.join(".")}` : "";
    // A message may quote its input, so a secret's own message is left out too.
    const reason = setting.secret ? "is not valid" : redactUrl(issue.message);
    return `${setting.env}${place}: ${reason}; got ${shown(setting, raw)}`;
  });
}

/**
 * Reads a service's settings once: each field's schema gets the text of its environment variable (undefined where
 * unset or empty, see `allowEmpty`). All faults are reported together in one `bad_settings` error, a line each that
 * begins with the variable's name.
 */
export function loadSettings<Shape extends Record<string, Setting>>(
  shape: Shape,
  env: Readonly<Record<string, string | undefined>>,
): { [Key in keyof Shape]: z.output<Shape[Key]["schema"]> } {
  const values: Record<string, unknown> = {};
  const faults: string[] = [];
  for (const [key, setting] of Object.entries(shape)) {
    const text = env[setting.env];
    const raw = text === "" && !setting.allowEmpty ? undefined : text;
    const result = setting.schema.safeParse(raw);
    if (result.success) values[key] = result.data;
    else faults.push(...faultsOf(setting, raw, result.error));
  }
  if (faults.length > 0) throw new LimError("bad_settings", faults.join("\n"));
  return values as { [Key in keyof Shape]: z.output<Shape[Key]["schema"]> };
}

/** Lines for `--help`: variable, whether it is required or its default, description. */
export function describeSettings(shape: Record<string, Setting>): string {
  const rows = Object.values(shape).map((setting) => {
    const unset = setting.schema.safeParse(undefined);
    const fallback = !unset.success
      ? "required"
      : unset.data === undefined
        ? "optional"
        : setting.secret
          ? "has a default"
          : `default ${setting.defaultText ?? defaultText(unset.data)}`;
    return { env: setting.env, fallback, text: setting.schema.description ?? "" };
  });
  const envWidth = Math.max(...rows.map((row) => row.env.length));
  const fallbackWidth = Math.max(...rows.map((row) => row.fallback.length));
  return rows
    .map((row) =>
      `  ${row.env.padEnd(envWidth)}  ${row.fallback.padEnd(fallbackWidth)}  ${row.text}`.trimEnd(),
    )
    .join("\n");
}

function defaultText(value: unknown): string {
  return typeof value === "string" ? redactUrl(value) || '""' : JSON.stringify(value);
}
