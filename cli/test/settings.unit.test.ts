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
    expect(read).toThrow(/LIM_API_TOKEN must have 16 to 256/);
    expect(read).not.toThrow(token);
  },
);

test.each(["manager:5190", "ftp://manager", "http://"])(
  "a manager's address that is none is refused: %s",
  (url) => {
    expect(() => readSettings({ LIM_MANAGER_URL: url })).toThrow(/LIM_MANAGER_URL must be like http:/);
  },
);
