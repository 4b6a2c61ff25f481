import { isLimError, type LimError } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { describeSettings, loadSettings } from "../src/index.ts";

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

  it("describes variables with default or requirement", () => {
    const text = describeSettings(shape);
    expect(text).toMatch(/X_PORT +x_port +default 5190 +Port to listen on/);
    expect(text).toMatch(/X_URL +x_url +required/);
    expect(text).toMatch(/X_HOST +x_host +optional/);
  });
});
