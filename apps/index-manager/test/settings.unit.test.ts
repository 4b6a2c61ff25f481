import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaults, engineNames, isLimError } from "@lim/contracts";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { helpText, readSettings, scheduleOf } from "../src/settings.ts";

const least = {
  REDIS_URL: "redis://127.0.0.1:6379",
  DATABASE_URL: "postgres://u:hunter2@127.0.0.1/faces",
  LIM_STORAGE_ROOT: "/var/lib/lim",
};

function faults(env: Record<string, string>): string {
  try {
    readSettings({ ...least, ...env });
  } catch (thrown) {
    if (isLimError(thrown, "bad_settings")) return thrown.detail;
  }
  return "";
}

describe("settings", () => {
  it("has the documented defaults", () => {
    expect(readSettings(least)).toMatchObject({
      host: "0.0.0.0",
      port: 5190,
      masterLock: "lim_manager_master",
      leaseTtlMs: 10_000,
      planningPeriodS: 3600,
      lookupPeriodMs: 1000,
      wanted: { kind: "dynamic" },
      minIndexingListSize: 50_000,
      rebuildDefault: true,
      maxRemovalForRebuild: 0,
      maxRemovalRatio: undefined,
      keepVersions: 2,
      engine: defaults.engine,
    });
    for (const engine of engineNames)
      expect(readSettings({ ...least, LIM_ENGINE: engine }).engine).toBe(engine);
    expect(faults({ LIM_ENGINE: "other" })).toContain("LIM_ENGINE");
  });

  it("cron wins over the period", () => {
    const settings = readSettings({
      ...least,
      LIM_PLANNING_SCHEDULE: "0 3 * * *",
      LIM_PLANNING_PERIOD_S: "5",
    });
    expect(scheduleOf(settings)).toEqual({ kind: "cron", expression: "0 3 * * *", timeZone: "UTC" });
  });

  it("reads lists and origins", () => {
    const id = "0B9A2C1E-5A55-4C0E-8F5A-6D1F2B3C4D5E";
    const settings = readSettings({
      ...least,
      LIM_LISTS: `${id}, ${id}`,
      LIM_INDEXERS: "http://a:1/,http://b:2",
    });
    expect(settings.wanted).toEqual({ kind: "lists", listIds: [id.toLowerCase()] });
    expect(settings.indexers).toEqual(["http://a:1", "http://b:2"]);
  });

  it.each([
    ["LIM_PLANNING_SCHEDULE", "61 * * * *", /minute/],
    ["LIM_PLANNING_TIME_ZONE", "Mars/Olympus", /time zone/],
    ["LIM_LISTS", "all", /dynamic/],
    ["LIM_INDEXERS", "a:1", /origin/],
    ["LIM_INDEXERS", "http://user:pw@a:1", /origin/],
    ["LIM_KEEP_VERSIONS", "0", /1/],
    ["LIM_REBUILD_DEFAULT", "maybe", /LIM_REBUILD_DEFAULT/],
    ["LIM_MANAGER_MASTER_LOCK", "a{b}", /brace/],
    ["DATABASE_URL", "hunter2", /DATABASE_URL/],
  ])("refuses %s=%s", (name, value, reason) => {
    const text = faults({ [name]: value });
    expect(text).toMatch(new RegExp(`^${name}: `, "m"));
    expect(text).toMatch(reason);
    expect(text).not.toContain("hunter2");
  });

  it("reports all faults together and prints no secret in its help", () => {
    expect(faults({ LIM_M: "1", LIM_LISTS: "x" }).split("\n")).toHaveLength(2);
    expect(helpText()).toMatch(/LIM_STORAGE_ROOT +lim_storage_root +required/);
    expect(helpText()).toMatch(/LIM_LISTS +lists +default dynamic/);
  });
});

describe("the settings file", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "lim-settings-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function file(text: string): string {
    const path = join(folder, "manager.yaml");
    writeFileSync(path, text);
    return path;
  }

  it("has the names of the field, with maps and lists", () => {
    const id = "0b9a2c1e-5a55-4c0e-8f5a-6d1f2b3c4d5e";
    const other = "1b9a2c1e-5a55-4c0e-8f5a-6d1f2b3c4d5e";
    const path = file(`
redis_url: redis://127.0.0.1:6379
database_url: postgres://u:hunter2@127.0.0.1/faces
lim_storage_root: /var/lib/lim
lim_manager_port: 0
master_lock: a_lock
planning_period: 600
planning_schedule: "*/5 * * * *"
planning_time_zone: Europe/Berlin
lim_lookup_period_ms: 250
lists: [${id}, ${other}]
min_indexing_list_size: 1000
rebuild_rules:
  default: false
  max_removal_for_rebuild: 7
  max_removal_ratio: 0.1
keep_versions: 3
task_retention: 60
indexers:
  - http://a:1
  - http://b:2
`);
    for (const settings of [readSettings({}, path), readSettings({ LIM_SETTINGS_FILE: path })]) {
      expect(settings).toMatchObject({
        port: 0,
        masterLock: "a_lock",
        planningPeriodS: 600,
        lookupPeriodMs: 250,
        wanted: { kind: "lists", listIds: [id, other] },
        minIndexingListSize: 1000,
        rebuildDefault: false,
        maxRemovalForRebuild: 7,
        maxRemovalRatio: 0.1,
        keepVersions: 3,
        taskRetentionS: 60,
        indexers: ["http://a:1", "http://b:2"],
      });
      expect(scheduleOf(settings)).toEqual({
        kind: "cron",
        expression: "*/5 * * * *",
        timeZone: "Europe/Berlin",
      });
    }
  });

  it.each([
    ["61 * * * *", /minute/],
    ["* * 32 * *", /day/],
    ["* * * *", /field/],
  ])("with the schedule %j is refused by line, name and field of the schedule", (schedule, field) => {
    const path = file(`keep_versions: 2\nplanning_schedule: "${schedule}"\n`);
    const text = faults({ LIM_SETTINGS_FILE: path });
    expect(text.startsWith(`${path}:2: planning_schedule: `)).toBe(true);
    expect(text).toMatch(field);
  });

  it("of another service is refused, by name", () => {
    const path = file("lim_matcher_port: 1\nplanning_perod: 5\n");
    const lines = faults({ LIM_SETTINGS_FILE: path }).split("\n");
    expect(lines).toHaveLength(2);
    expect(lines[0]).toContain('"lim_matcher_port" is no setting');
    expect(lines[1]).toContain('the nearest is "planning_period"');
  });
});
