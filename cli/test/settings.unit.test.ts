import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readSettings } from "../src/settings.ts";

test("no token and the manager of this machine where nothing is set, or empty", () => {
  for (const env of [{}, { LIM_API_TOKEN: "", LIM_MANAGER_URL: "" }])
    expect(readSettings(env)).toMatchObject({ apiToken: undefined, managerUrl: "http://127.0.0.1:5190" });
});

test("the token is taken as the managers take it", () => {
  expect(readSettings({ LIM_API_TOKEN: "0123456789abcdef" }).apiToken).toBe("0123456789abcdef");
});

test.each(["short", "with a blank in it 123", `${"x".repeat(16)}\n`, "x".repeat(257)])(
  "a token that no manager has is refused and not shown: %j",
  (token) => {
    const read = () => readSettings({ LIM_API_TOKEN: token });
    expect(read).toThrow(/LIM_API_TOKEN: must be: text of 16 to 256 .*; got \(secret, not shown\)/);
    expect(read).not.toThrow(token);
  },
);

test.each(["manager:5190", "ftp://manager", "http://"])(
  "a manager's address that is none is refused: %s",
  (url) => {
    expect(() => readSettings({ LIM_MANAGER_URL: url })).toThrow(/LIM_MANAGER_URL: must be like http:/);
  },
);

test.each([
  [{ REDIS_URL: "redsi://u:hunter2@h" }, /REDIS_URL: must be: address of Redis/],
  [
    { LIM_MANAGER_URL: "ftp://u:hunter2@manager" },
    /LIM_MANAGER_URL: must be like http:.*ftp:\/\/\*\*\*@manager/,
  ],
  [{ LIM_MANAGER_ULR: "http://u:hunter2@manager" }, /LIM_MANAGER_ULR: is no setting; .* LIM_MANAGER_URL/],
  [{ LIM_DESCRIPTOR_DIM: "0" }, /LIM_DESCRIPTOR_DIM: .*; got "0"/],
])("what is wrong is told by name, and no secret: %j", (env, message) => {
  const read = () => readSettings(env);
  expect(read).toThrow(message);
  expect(read).not.toThrow("hunter2");
});

test("the file's names give way to the environment; an unknown one is refused", () => {
  const folder = mkdtempSync(join(tmpdir(), "lim-settings-"));
  const file = join(folder, "lim.yaml");
  try {
    writeFileSync(file, "lim_manager_url: http://a:1\nlim_descriptor_dim: 128\n");
    const env = { LIM_CLI_SETTINGS_FILE: file, LIM_MANAGER_URL: "http://b:1" };
    expect(readSettings(env)).toMatchObject({ managerUrl: "http://b:1", dim: 128 });
    writeFileSync(file, "lim_manger_url: http://a:1\n");
    expect(() => readSettings(env)).toThrow(
      /lim.yaml:1: "lim_manger_url" is no setting; .*"lim_manager_url"/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
