import { defaults } from "@lim/contracts";
import { defaultRerank, rerankKinds } from "@lim/vector-index";
import { expect, test } from "vitest";
import { readSettings, settingsHelp } from "../src/settings.ts";

const required = {
  REDIS_URL: "redis://127.0.0.1:6379",
  DATABASE_URL: "postgres://u:p@db/lim",
  LIM_STORAGE_ROOT: "/indexes",
};

test("defaults are those of the design", () => {
  const settings = readSettings({ ...required, VL_LIM_MATCHER_HOST: "matcher-3" });
  expect(settings).toMatchObject({
    port: defaults.matcherPort,
    matcherHost: "matcher-3",
    reloadPeriodMs: 5_000,
    refreshEnabled: true,
    refreshPeriodMs: 200,
    labelKeyTtlMs: 10_000,
    labelKeyRenewMs: 3_000,
    efSearch: 128,
    memoryLimitRatio: 0.8,
    rerank: defaultRerank,
    streamPrefix: "lim_match:",
  });
  expect(readSettings({ ...required, LIM_MATCH_STREAM_PREFIX: "" }).streamPrefix).toBe("");
});

test("faults are told together and by name", () => {
  for (const rerank of rerankKinds)
    expect(readSettings({ ...required, LIM_RERANK: rerank }).rerank).toBe(rerank);
  const env = {
    LIM_RERANK: "int8",
    LIM_REFRESH_ENABLED: "maybe",
    LIM_LABEL_KEY_TTL_MS: "1000",
    VL_LIM_MATCHER_HOST: "a|b",
  };
  for (const name of [
    "REDIS_URL",
    "DATABASE_URL",
    "LIM_STORAGE_ROOT",
    "LIM_REFRESH_ENABLED",
    "LIM_RERANK",
    "LIM_LABEL_KEY_RENEW_MS",
    "VL_LIM_MATCHER_HOST",
  ])
    expect(() => readSettings(env)).toThrow(name);
  expect(() => readSettings({ ...required, LIM_MATCHER_CACHE: "/indexes/" })).toThrow(
    /LIM_MATCHER_CACHE.*LIM_STORAGE_ROOT/,
  );
  expect(settingsHelp()).toContain("LIM_MEMORY_LIMIT_RATIO");
});
