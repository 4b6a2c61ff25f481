import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, type YAMLMap } from "yaml";
import { nearestOf } from "./nearest.ts";
import { redactText } from "./redact.ts";

/** Of a settings file. */
export const settingsFileLimits = { maxBytes: 1024 * 1024, maxFaults: 50, maxShownKeyChars: 100 } as const;

/** What a setting is called in the file, and whether it takes a list there. */
export interface FileName {
  name: string;
  list: boolean;
}

export interface FileSettings {
  /** By name: the text as an environment variable would have it, and `file:line`. Names that are null are left out. */
  values: ReadonlyMap<string, { text: string; place: string }>;
  /** A line each, with its place. */
  faults: readonly string[];
  /** False where nothing could be read, so that a name that is not in `values` may well be in the file. */
  readable: boolean;
}

/**
 * Reads a YAML file of settings. Nothing is thrown: all that is wrong with the file is in `faults`, whose texts quote
 * no value. Aliases and tags of one's own are not taken, so the file cannot grow while it is read.
 */
export function readSettingsFile(path: string, names: readonly FileName[]): FileSettings {
  const unreadable = (reason: string): FileSettings => ({
    values: new Map(),
    faults: [reason.startsWith(":") ? `${path}${reason}` : `${path}: ${reason}`],
    readable: false,
  });
  const bytes = bytesOf(path);
  if (typeof bytes === "string") return unreadable(bytes);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return unreadable("is not UTF-8");
  }
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    // Its frames quote the file, and its own check of keys does not say which: both are done here.
    prettyErrors: false,
    uniqueKeys: false,
    schema: "core",
  });
  const fault = document.errors[0] ?? document.warnings[0];
  if (fault)
    return unreadable(
      `:${lines.linePos(fault.pos[0]).line}: is not plain YAML (${fault.code.toLowerCase().replaceAll("_", " ")})`,
    );
  const root: Node | null = document.contents;
  const walk = new Walk(path, lines, names);
  if (root !== null && !(isScalar(root) && root.value === null)) {
    if (isMap(root)) walk.map(root, "");
    else walk.fault(root, "must be a map of names to values");
  }
  return { values: walk.values, faults: walk.allFaults(), readable: true };
}

/** The file's bytes, or why there are none. */
function bytesOf(path: string): Buffer | string {
  let handle: number;
  try {
    handle = openSync(path, "r");
  } catch (thrown) {
    return `cannot be read (${(thrown as NodeJS.ErrnoException).code ?? "unknown"})`;
  }
  try {
    if (!fstatSync(handle).isFile()) return "is not a file";
    // By what is read, not by the size: the file may grow meanwhile.
    const buffer = Buffer.alloc(settingsFileLimits.maxBytes + 1);
    let length = 0;
    for (;;) {
      const read = readSync(handle, buffer, length, buffer.length - length, null);
      length += read;
      if (read === 0 || length === buffer.length) break;
    }
    if (length > settingsFileLimits.maxBytes)
      return `is larger than ${settingsFileLimits.maxBytes} bytes, the most that is taken`;
    return buffer.subarray(0, length);
  } catch (thrown) {
    return `cannot be read (${(thrown as NodeJS.ErrnoException).code ?? "unknown"})`;
  } finally {
    closeSync(handle);
  }
}

class Walk {
  readonly values = new Map<string, { text: string; place: string }>();
  private readonly faults: string[] = [];
  /** Of the whole file: `a: {b: 1}` and `a.b: 1` name the same. */
  private readonly seen = new Map<string, string>();
  private readonly path: string;
  private readonly lines: LineCounter;
  private readonly names: ReadonlyMap<string, FileName>;

  constructor(path: string, lines: LineCounter, names: readonly FileName[]) {
    this.path = path;
    this.lines = lines;
    this.names = new Map(names.map((name) => [name.name, name]));
  }

  fault(node: Node | null, text: string): void {
    this.faults.push(`${this.placeOf(node)}: ${text}`);
  }

  allFaults(): string[] {
    const { maxFaults } = settingsFileLimits;
    if (this.faults.length <= maxFaults) return this.faults;
    return [
      ...this.faults.slice(0, maxFaults),
      `${this.path}: and ${this.faults.length - maxFaults} more faults`,
    ];
  }

  map(node: YAMLMap, prefix: string): void {
    for (const { key, value } of node.items as { key: Node | null; value: Node | null }[]) {
      if (!isScalar(key)) {
        this.fault(key, "a name must be plain text");
        continue;
      }
      const name = prefix + String(key.value);
      const before = this.seen.get(name);
      if (before !== undefined) {
        this.fault(key, `${shownKey(name)} is given twice, before at ${before}`);
        continue;
      }
      this.seen.set(name, this.placeOf(key));
      const known = this.names.get(name);
      if (known) this.value(known, value, key);
      else if ([...this.names.keys()].some((other) => other.startsWith(`${name}.`)))
        this.group(name, value, key);
      else if (this.faults.length >= settingsFileLimits.maxFaults) this.fault(key, "unknown name");
      else this.fault(key, `${shownKey(name)} is no setting; the nearest is "${this.nearest(name)}"`);
    }
  }

  private group(name: string, value: Node | null, key: Node): void {
    if (value === null || (isScalar(value) && value.value === null)) return;
    if (isMap(value)) this.map(value, `${name}.`);
    else this.fault(key, `${name}: must be a map`);
  }

  private value({ name, list }: FileName, value: Node | null, key: Node): void {
    const place = this.placeOf(key);
    if (value === null || (isScalar(value) && value.value === null)) return;
    if (isSeq(value) && list) {
      const texts = value.items.map((item) => textOf(item as Node));
      if (texts.some((text) => text === undefined || text.includes(",")))
        this.fault(key, `${name}: items of the list must be single values without commas`);
      else this.values.set(name, { text: texts.join(","), place });
      return;
    }
    const text = textOf(value);
    if (text !== undefined) this.values.set(name, { text, place });
    else
      this.fault(
        key,
        `${name}: must be ${list ? "a value or a list of values" : "one value"}, not ${kindOf(value)}`,
      );
  }

  private placeOf(node: Node | null): string {
    const at = node?.range?.[0];
    return at === undefined ? this.path : `${this.path}:${this.lines.linePos(at).line}`;
  }

  private nearest(name: string): string {
    const wanted = name.slice(0, settingsFileLimits.maxShownKeyChars);
    return nearestOf(wanted, this.names.keys())?.name ?? "";
  }
}

/** A name as it may be shown: someone may have written a value where a name belongs. */
function shownKey(name: string): string {
  return JSON.stringify(redactText(name).slice(0, settingsFileLimits.maxShownKeyChars));
}

function kindOf(node: Node): string {
  if (isAlias(node)) return "an alias";
  return isMap(node) ? "a map" : "a list";
}

/** What the environment would have for a single value; undefined where it is none. */
function textOf(node: Node): string | undefined {
  if (!isScalar(node)) return undefined;
  const { value, source } = node;
  if (typeof value === "string") return value;
  // As it is written: a version 1.10 stays what it is.
  if (typeof value === "number" || typeof value === "bigint") return source ?? String(value);
  return typeof value === "boolean" ? String(value) : undefined;
}
