import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { redactText } from "../src/redact.ts";

/** What a logger prints for `body`, which has `log`. */
function logged(body: string, options = ""): string {
  const source = `
    import { createLogger } from ${JSON.stringify(new URL("../src/logger.ts", import.meta.url).href)};
    const log = createLogger({ service: "toy", level: "info"${options} });
    ${body}`;
  return spawnSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8" }).stdout;
}

describe("the logger", () => {
  it("shows no secret, wherever it stands in what is logged", () => {
    const text = logged(`
      const address = "postgres://u:hunter2@db/lim";
      const refused = Object.assign(new Error("WRONGPASS", { cause: new Error("cannot reach " + address) }),
        { command: { name: "auth", args: ["hunter2"] } });
      log.info({ database: address, deep: { list: [{ url: 'redis://:hun"ter2@h:1' }] } }, "reaching " + address);
      log.child({ origin: address }).error({ err: refused }, "failed");
      log.warn({ request: { headers: { authorization: "Bearer hunter2hunter2" }, token: "hunter2" } }, "asked");
      log.info({ reason: "sent Authorization: Bearer hunter2hunter2" }, "end");`);
    const lines = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.map((line) => line.msg)).toEqual([
      "reaching postgres://***@db/lim",
      "failed",
      "asked",
      "end",
    ]);
    expect(lines[0]).toMatchObject({ service: "toy", level: "info", database: "postgres://***@db/lim" });
    expect(lines[1].err.stack).toContain("cannot reach postgres://***@db/lim");
    expect(text).not.toMatch(/hunter2|ter2/);
  });
});

describe("a logger that is sync", () => {
  it("has written each line, redacted, when the process ends by its own hand", () => {
    const text = logged(
      `for (let i = 0; i < 20; i++) log.info({ i, address: "redis://:hunter2@h" }, "line");
      process.kill(process.pid, "SIGKILL");`,
      ", sync: true",
    );
    const lines = text.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line).i)).toEqual(Array.from({ length: 20 }, (_, i) => i));
    expect(text).not.toContain("hunter2");
  });
});

describe("redactText", () => {
  it.each([
    ["redis://:p@w@h:1", "redis://***@h:1"],
    ["http://a:1,http://u:p@b:1", "http://a:1,http://***@b:1"],
    ["postgres://u:a b@h", "postgres://***@h"],
    ["http://a/b@c and x@y", "http://a/b@c and x@y"],
    ["redis-sentinel://h/m?db=1&sentinel_password=p%20w", "redis-sentinel://h/m?db=1&sentinel_password=***"],
    ["Bearer 0123456789abcdef", "Bearer ***"],
    ["no bearer of news", "no bearer of news"],
  ])("of %j is %j", (text, shown) => expect(redactText(text)).toBe(shown));

  it("takes time in proportion to what it reads", () => {
    expect(redactText(`${"://a".repeat(300_000)}@`)).toMatch(/\*@$/);
  });
});
