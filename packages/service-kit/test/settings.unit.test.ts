import { isLimError, type LimError } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { commonSettings, describeSettings, flag, loadSettings, wholeNumber } from "../src/index.ts";
import { settingRow } from "../src/settings-rows.ts";
import { unknownVariables } from "../src/variables.ts";

const shape = {
  port: {
    env: "X_PORT",
    schema: z.coerce.number().int().min(0).max(65535).default(5190).describe("Port to listen on"),
  },
  url: { env: "X_URL", schema: z.url().describe("Address of the database"), secret: true },
  prefix: { env: "X_PREFIX", schema: z.string().default("p:"), allowEmpty: true },
  host: { env: "X_HOST", schema: z.string().optional() },
};

function faultOf(env: Record<string, string>): LimError {
  try {
    loadSettings(shape, env);
  } catch (thrown) {
    if (isLimError(thrown, "bad_settings")) return thrown;
  }
  throw new Error("no bad_settings");
}

describe("loadSettings", () => {
  it("types and defaults values; empty counts as unset unless allowed", () => {
    const settings = loadSettings(shape, { X_PORT: "", X_URL: "redis://h", X_PREFIX: "", X_HOST: "" });
    expect(settings).toEqual({ port: 5190, url: "redis://h", prefix: "", host: undefined });
  });

  it("reports all faults together, each with its variable", () => {
    const { detail } = faultOf({ X_PORT: "many" });
    expect(detail).toMatch(/^X_PORT: .*"many"/m);
    expect(detail).toMatch(/^X_URL: is required/m);
  });

  it("prints no secret, neither marked nor inside an address", () => {
    const secret = faultOf({ X_URL: "hunter2" });
    expect(secret.message + secret.detail).not.toContain("hunter2");
    const inAddress = faultOf({ X_URL: "redis://h", X_PORT: "redis://u:hunter2@h" });
    expect(inAddress.detail).not.toContain("hunter2");
  });

  it("shows no password of any address in a value that is no secret", () => {
    const { detail } = faultOf({ X_URL: "redis://h", X_PORT: "http://a:1,http://u:hunter2@b:1" });
    expect(detail).toContain("http://a:1,http://***@b:1");
    expect(detail).not.toContain("hunter2");
  });

  it("refuses near misses of known variables, with the nearest", () => {
    const { detail } = faultOf({ X_URL: "redis://h", LIM_REFRESH_ENABLE: "hunter2", LIM_STORAGE_ROTO: "/x" });
    expect(detail.split("\n")).toEqual([
      "LIM_REFRESH_ENABLE: is no setting; the nearest is LIM_REFRESH_ENABLED",
      "LIM_STORAGE_ROTO: is no setting; the nearest is LIM_STORAGE_ROOT",
    ]);
  });

  it("lets variables of other services, of orchestrators and of tests pass", () => {
    const env = {
      LIM_MATCHER_PORT: "5200",
      LIM_MANAGER_SERVICE_HOST: "10.0.0.1",
      LIM_MANAGER_PORT_5190_TCP: "tcp://10.0.0.1:5190",
      LIM_TEST_DATE: "x",
      LIM_X: "x",
      LIM_LIST: "",
      LOG_LEVELS: "x",
    };
    expect(loadSettings(shape, { X_URL: "redis://h", ...env }).port).toBe(5190);
    expect(unknownVariables(env)).toEqual({
      faults: [],
      strange: ["LIM_MANAGER_PORT_5190_TCP", "LIM_MANAGER_SERVICE_HOST", "LIM_X"],
    });
  });

  it("knows addresses of Redis of every kind, and says what they are like without showing one", () => {
    const read = (REDIS_URL: string) => loadSettings({ redisUrl: commonSettings.redisUrl }, { REDIS_URL });
    for (const url of ["redis://u:p@h/1", "rediss-sentinel://a:1,b:2/main", "redis-cluster://a:1,b:2"])
      expect(read(url)).toEqual({ redisUrl: url });
    for (const url of ["http://hunter2@h", "redis://u:hunter2@", "redis://a:1,hunter2:2"]) {
      expect(() => read(url)).toThrow(/^.*REDIS_URL: must be: address of Redis, its Sentinels or a Cluster/);
      expect(() => read(url)).not.toThrow("hunter2");
    }
  });

  it("describes variables with default or requirement", () => {
    const text = describeSettings(shape);
    expect(text).toMatch(/X_PORT +x_port +default 5190 +Port to listen on/);
    expect(text).toMatch(/X_URL +x_url +required/);
    expect(text).toMatch(/X_HOST +x_host +optional/);
    const taken = (schema: z.ZodType) => settingRow({ env: "X", schema }, "x").takes;
    expect(
      [shape.port.schema, wholeNumber(1, Number.MAX_SAFE_INTEGER), flag.default(true)].map(taken),
    ).toEqual(["whole number 0 to 65535", "whole number from 1", "true or false"]);
    expect(taken(z.coerce.number().gt(0).max(1).optional())).toBe("number above 0, at most 1");
    expect(taken(z.enum(["a", "b"]).default("a"))).toBe("a, b");
  });
});
