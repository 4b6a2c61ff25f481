import { LimError } from "@lim/contracts";
import type { z } from "zod";
import { redactText } from "./redact.ts";
import { type FileSettings, readSettingsFile, settingsFileLimits } from "./settings-file.ts";
import { settingRow } from "./settings-rows.ts";
import { unknownVariables } from "./variables.ts";

export interface Setting {
  /** Environment variable. */
  env: string;
  /** Path in the settings file, e.g. `rebuild_rules.default`; without it the variable's name in lower case. */
  file?: string;
  /** In the file it may be a list, which is joined by commas as the variable has it. */
  list?: boolean;
  schema: z.ZodType;
  /** Its value appears in no message, default included. */
  secret?: boolean;
  /** An empty variable is the value ""; without this it counts as unset, as compose files write it. */
  allowEmpty?: boolean;
  /** Its default as one would write it, where the schema turns text into something else or the machine decides. */
  defaultText?: string;
  /** What it takes, where the schema cannot say it. */
  takes?: string;
}

export type SettingsShape = Record<string, Setting>;

const maxShownChars = 200;

function shown(setting: Setting, raw: string): string {
  if (setting.secret) return "(secret, not shown)";
  return JSON.stringify(redactText(raw).slice(0, maxShownChars));
}

type Env = Readonly<Record<string, string | undefined>>;
type ValuesOf<Shape extends SettingsShape> = {
  [Key in keyof Shape]: z.output<Shape[Key]["schema"]>;
};

export const settingsFileEnv = "LIM_SETTINGS_FILE";

/** The settings file: the argument's, else the variable's; undefined where neither names one. */
export function settingsFileOf(env: Env, argument: string | undefined): string | undefined {
  return argument ?? (env[settingsFileEnv] || undefined);
}

/** What a setting is called in the settings file. */
export const fileNameOf = (setting: Setting) => setting.file ?? setting.env.toLowerCase();

/** The text of a setting and where it is from, as a fault names it. */
interface Source {
  text: string | undefined;
  place: string;
}

function sourceOf(setting: Setting, env: Env, file: FileSettings | undefined): Source {
  const ofEnv = env[setting.env];
  const usable = (text: string | undefined) =>
    text !== undefined && (text !== "" || setting.allowEmpty === true);
  if (usable(ofEnv)) return { text: ofEnv, place: setting.env };
  const ofFile = file?.values.get(fileNameOf(setting));
  if (ofFile && usable(ofFile.text))
    return { text: ofFile.text, place: `${ofFile.place}: ${fileNameOf(setting)}` };
  return { text: undefined, place: setting.env };
}

function faultsOf(setting: Setting, { text, place }: Source, error: z.ZodError): string[] {
  if (text === undefined) return [`${place}: is required and not set`];
  const secretReason = setting.takes === undefined ? "is not valid" : `must be: ${setting.takes}`;
  return error.issues.map((issue) => {
    const at = issue.path.length > 0 ? ` at ${issue.path.join(".")}` : "";
    // A message may quote its input, so a secret's own message is left out too.
    const reason = setting.secret ? secretReason : redactText(issue.message);
    return `${place}${at}: ${reason}; got ${shown(setting, text)}`;
  });
}

function readFile(path: string | undefined, shape: SettingsShape): FileSettings | undefined {
  if (path === undefined) return undefined;
  const names = Object.values(shape).map((setting) => ({
    name: fileNameOf(setting),
    list: setting.list === true,
  }));
  return readSettingsFile(path, names);
}

/**
 * Reads a service's settings once: each field's schema gets the text of its environment variable, else the one in the
 * YAML file (undefined where both are unset, null or empty, see `allowEmpty`). `check` sees what is valid and tells
 * faults between settings. A near miss of a known variable is a fault too (see `unknownVariables`). All faults are reported together in one `bad_settings` error, a line each that begins with
 * the variable's name, or with `file:line` and the name there.
 */
export function loadSettings<Shape extends SettingsShape>(
  shape: Shape,
  env: Env,
  file?: string,
  check?: (valid: Partial<ValuesOf<Shape>>) => readonly { key: keyof Shape & string; fault: string }[],
): ValuesOf<Shape> {
  const values: Record<string, unknown> = {};
  const fromFile = readFile(file, shape);
  const own = Object.values(shape).map((setting) => setting.env);
  const faults = [...(fromFile?.faults ?? []), ...unknownVariables(env, own).faults];
  const sources = new Map<string, Source>();
  for (const [key, setting] of Object.entries(shape)) {
    const source = sourceOf(setting, env, fromFile);
    sources.set(key, source);
    const result = setting.schema.safeParse(source.text);
    if (result.success) values[key] = result.data;
    else if (source.text !== undefined || fromFile?.readable !== false)
      faults.push(...faultsOf(setting, source, result.error));
  }
  for (const { key, fault } of check?.(values as Partial<ValuesOf<Shape>>) ?? [])
    faults.push(`${sources.get(key)?.place ?? key}: ${fault}`);
  if (faults.length > 0) throw new LimError("bad_settings", faults.join("\n"));
  return values as ValuesOf<Shape>;
}

/** For `--help`: where settings come from. */
export function settingsSources(): string {
  const mebibytes = settingsFileLimits.maxBytes / 1024 / 1024;
  return [
    "Each setting comes from its environment variable, else from the settings file, else it has its default.",
    `The file is named by --settings FILE or ${settingsFileEnv}: YAML of at most ${mebibytes} MiB, of this service alone`,
    "(names of another service's settings are refused); dots in names nest.",
  ].join("\n");
}

/** Lines for `--help`: variable, name in the file, whether it is required or its default, description. */
export function describeSettings(shape: SettingsShape): string {
  const rows = Object.values(shape).map((setting) => {
    const { env, file, fallback, meaning } = settingRow(setting, fileNameOf(setting));
    return { env, file, fallback, text: meaning };
  });
  const envWidth = Math.max(...rows.map((row) => row.env.length));
  const fileWidth = Math.max(...rows.map((row) => row.file.length));
  const fallbackWidth = Math.max(...rows.map((row) => row.fallback.length));
  return rows
    .map((row) =>
      `  ${row.env.padEnd(envWidth)}  ${row.file.padEnd(fileWidth)}  ${row.fallback.padEnd(fallbackWidth)}  ${row.text}`.trimEnd(),
    )
    .join("\n");
}
