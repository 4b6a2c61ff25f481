import { defaults, engineNames, isLimError } from "@lim/contracts";
import { describe, expect, it } from "vitest";
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
    expect(helpText()).toMatch(/LIM_STORAGE_ROOT +required/);
    expect(helpText()).toMatch(/LIM_LISTS +default dynamic/);
  });
});
