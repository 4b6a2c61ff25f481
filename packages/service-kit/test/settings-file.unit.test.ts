import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isLimError } from "@lim/contracts";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { flag, loadSettings, settingsFileLimits, settingsFileOf, wholeNumber } from "../src/index.ts";

const shape = {
  port: { env: "X_PORT", schema: wholeNumber(0, 65_535).default(1) },
  url: { env: "X_URL", schema: z.url(), secret: true },
  text: { env: "X_TEXT", schema: z.string().default("unset"), allowEmpty: true },
  version: { env: "X_VERSION", file: "version", schema: z.string().optional() },
  names: { env: "X_NAMES", file: "names", list: true, schema: z.string().optional() },
  byDefault: { env: "X_DEFAULT", file: "rules.default", schema: flag.default(true) },
  most: { env: "X_MOST", file: "rules.most", schema: wholeNumber(1, 5).optional() },
};
const url = "redis://u:hunter2@h";
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lim-settings-"));
  path = join(folder, "x.yaml");
});
afterEach(() => rmSync(folder, { recursive: true }));

function load(content: string | Uint8Array, env: Record<string, string> = { X_URL: url }) {
  writeFileSync(path, content);
  return loadSettings(shape, env, path);
}

/** Lines of the one error, with FILE for the file's path. */
function faultsOf(content: string | Uint8Array, env?: Record<string, string>): string[] {
  return faultsIn(() => load(content, env));
}

function faultsIn(action: () => unknown): string[] {
  try {
    action();
  } catch (thrown) {
    if (isLimError(thrown, "bad_settings")) return thrown.detail.replaceAll(path, "FILE").split("\n");
    throw thrown;
  }
  throw new Error("no bad_settings");
}

describe("the settings file", () => {
  it("gives values of every kind; what is null or left out has its default", () => {
    const settings = load(
      `x_port: 8080\nx_url: ${url}\nx_text: ""\nversion: 1.10\nnames: [a, 2, true]\nrules:\n  default: false\n  most: null\n`,
      {},
    );
    expect(settings).toEqual({
      port: 8080,
      url,
      text: "",
      version: "1.10",
      names: "a,2,true",
      byDefault: false,
      most: undefined,
    });
  });

  it.each(["", "# nothing\n", "---\n", "rules:\n", "{}"])("may say nothing: %j", (content) => {
    expect(load(content)).toMatchObject({ port: 1, byDefault: true, text: "unset" });
  });

  it("may write a nested name with dots", () => {
    expect(load("rules.most: 2").most).toBe(2);
  });

  it("gives way to the environment, but not to an empty variable", () => {
    expect(load("x_port: 2", { X_URL: url, X_PORT: "3" }).port).toBe(3);
    expect(load("x_port: 2", { X_URL: url, X_PORT: "" }).port).toBe(2);
    expect(load("x_text: a", { X_URL: url, X_TEXT: "" }).text).toBe("");
  });

  it("is the argument's, else the variable's", () => {
    expect(settingsFileOf({ LIM_SETTINGS_FILE: "a" }, "b")).toBe("b");
    expect(settingsFileOf({ LIM_SETTINGS_FILE: "a" }, undefined)).toBe("a");
    expect(settingsFileOf({ LIM_SETTINGS_FILE: "" }, undefined)).toBeUndefined();
  });

  it.each([
    [
      "an unknown name",
      "a: 1\nx_prot: 1",
      [
        'FILE:1: "a" is no setting; the nearest is "names"',
        'FILE:2: "x_prot" is no setting; the nearest is "x_port"',
      ],
    ],
    [
      "an unknown name in a map",
      "rules:\n  mots: 1",
      ['FILE:2: "rules.mots" is no setting; the nearest is "rules.most"'],
    ],
    ["a name twice", "x_port: 1\n\nx_port: 2", ['FILE:3: "x_port" is given twice, before at FILE:1']],
    [
      "a name twice, nested and with dots",
      "rules: {most: 1}\nrules.most: 2",
      ['FILE:2: "rules.most" is given twice, before at FILE:1'],
    ],
    ["a value for a map", "rules: true", ["FILE:1: rules: must be a map"]],
    ["a map for a value", "x_port:\n  a: 1", ["FILE:1: x_port: must be one value, not a map"]],
    ["a list for a value", "x_text: [a]", ["FILE:1: x_text: must be one value, not a list"]],
    [
      "a map in a list",
      "names: [{a: 1}]",
      ["FILE:1: names: items of the list must be single values without commas"],
    ],
    [
      "an item with a comma",
      'names: ["a,b"]',
      ["FILE:1: names: items of the list must be single values without commas"],
    ],
    [
      "a null item",
      "names: [a, null]",
      ["FILE:1: names: items of the list must be single values without commas"],
    ],
    ["a list at the root", "- a", ["FILE:1: must be a map of names to values"]],
    ["a text at the root", "hunter2", ["FILE:1: must be a map of names to values"]],
    ["a map as a name", "? {a: 1}\n: 2", ["FILE:1: a name must be plain text"]],
    ["an alias", "x_text: &a b\nversion: *a", ["FILE:2: version: must be one value, not an alias"]],
    ["a merge", "rules: &a {most: 1}\n<<: *a", ['FILE:2: "<<" is no setting; the nearest is "x_url"']],
    ["a tag of its own", "x_text: !secret hunter2", ["FILE:1: is not plain YAML (tag resolve failed)"]],
    ["a bracket left open", "x_port: 1\nx_text: [hunter2", ["FILE:2: is not plain YAML (bad indent)"]],
    ["a quote left open", 'x_port: 1\nx_text: "hunter2', ["FILE:2: is not plain YAML (missing char)"]],
    ["text after a value", 'x_text: "a" hunter2', ["FILE:1: is not plain YAML (unexpected token)"]],
    ["two documents", "x_port: 1\n---\nx_port: 2", ["FILE:2: is not plain YAML (multiple docs)"]],
    ["an unknown alias", "x_text: *hunter2", ["FILE:1: x_text: must be one value, not an alias"]],
    ["a tab", "rules:\n\tmost: 1", ["FILE:2: is not plain YAML (tab as indent)"]],
  ])("with %s is refused by its line", (_name, content, expected) => {
    const faults = faultsOf(content);
    expect(faults).toEqual(expected);
    expect(faults.join()).not.toContain("hunter2");
  });

  it("with values that the schema refuses is refused by line and name, with the environment's faults", () => {
    expect(faultsOf("rules:\n  most: 6\n  default: maybe\nx_port: 1.5", { X_URL: "no" })).toEqual([
      expect.stringMatching(/^FILE:4: x_port: .*; got "1\.5"$/),
      "X_URL: is not valid; got (secret, not shown)",
      expect.stringMatching(/^FILE:3: rules\.default: .*; got "maybe"$/),
      expect.stringMatching(/^FILE:2: rules\.most: .*; got "6"$/),
    ]);
  });

  it("shows no secret of the file", () => {
    expect(faultsOf("x_url: hunter2", {})).toEqual(["FILE:1: x_url: is not valid; got (secret, not shown)"]);
    expect(faultsOf(`"${url}": 1`).join()).not.toContain("hunter2");
  });

  it("that cannot be read is one fault, beside those of the environment, and hides none of what it may hold", () => {
    const missing = () => loadSettings(shape, { X_PORT: "no" }, path);
    expect(faultsIn(missing)).toEqual(["FILE: cannot be read (ENOENT)", expect.stringMatching(/^X_PORT: /)]);
    mkdirSync(path);
    expect(faultsIn(missing)[0]).toBe("FILE: is not a file");
  });

  it("has a limit", () => {
    const { maxBytes } = settingsFileLimits;
    const padded = (bytes: number) => `x_port: 7\n${"#".repeat(bytes - "x_port: 7\n".length)}`;
    expect(load(padded(maxBytes)).port).toBe(7);
    expect(faultsOf(padded(maxBytes + 1))).toEqual([
      "FILE: is larger than 1048576 bytes, the most that is taken",
    ]);
  });

  it("that is made to cost much costs one fault", () => {
    const doublings = Array.from({ length: 60 }, (_, i) => `  - &a${i + 1} [*a${i}, *a${i}]`).join("\n");
    expect(faultsOf(`names:\n  - &a0 [x]\n${doublings}`)).toEqual([
      expect.stringMatching(/^FILE:1: names: items/),
    ]);
    expect(faultsOf(`names: ${"[".repeat(5_000)}`)).toEqual([
      "FILE:1: is not plain YAML (resource exhaustion)",
    ]);
    expect(faultsOf(Uint8Array.of(0x61, 0x3a, 0xff))).toEqual(["FILE: is not UTF-8"]);
    const many = Array.from({ length: 5_000 }, (_, i) => `a${i}: 1`).join("\n");
    const faults = faultsOf(many);
    expect(faults).toHaveLength(settingsFileLimits.maxFaults + 1);
    expect(faults.at(-1)).toBe("FILE: and 4950 more faults");
  });

  it("takes part in what is checked between settings", () => {
    writeFileSync(path, "x_port: 4\n");
    const check = ({ port }: { port?: number }) =>
      port === 4 ? [{ key: "port" as const, fault: "is taken" }] : [];
    expect(faultsIn(() => loadSettings(shape, { X_URL: url }, path, check))).toEqual([
      "FILE:1: x_port: is taken",
    ]);
    expect(loadSettings(shape, { X_URL: url, X_PORT: "5" }, path, check).port).toBe(5);
  });
});
