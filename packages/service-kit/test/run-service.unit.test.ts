import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";

/** A service whose main is `body`, under this Node, as a process of its own. */
function service(
  body: string,
  args: string[] = [],
  forceAfterMs = 300,
): ChildProcessWithoutNullStreams & { text: () => string } {
  const source = `
    import { LimError } from "@lim/contracts";
    import { runService } from ${JSON.stringify(new URL("../src/run-service.ts", import.meta.url).href)};
    await runService({ name: "toy", version: "1.2.3", help: () => "the help", forceAfterMs: ${forceAfterMs},
      main: async (signal, settingsFile) => { ${body} } });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source, "--", "toy", ...args], {
    cwd: new URL("..", import.meta.url),
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (text += chunk));
  return Object.assign(child, { text: () => text });
}

async function endOf(child: ReturnType<typeof service>): Promise<{ code: number; text: string }> {
  const [code] = (await once(child, "close")) as [number];
  return { code, text: child.text() };
}

async function whenReady(child: ReturnType<typeof service>): Promise<void> {
  while (!child.text().includes("ready")) await once(child.stdout, "data");
}

const untilAborted = `console.log("ready"); const timer = setInterval(() => {}, 1000);
  await new Promise((resolve) => signal.addEventListener("abort", resolve)); `;

const stuck = `${untilAborted} console.log("stuck"); await new Promise(() => {});`;

describe("runService", () => {
  it("prints help and version, refuses other arguments", async () => {
    expect(await endOf(service("", ["--help"]))).toEqual({ code: 0, text: "the help\n" });
    expect(await endOf(service("", ["--version"]))).toEqual({ code: 0, text: "toy 1.2.3\n" });
    expect((await endOf(service("", ["--nope"]))).code).toBe(2);
  });

  it("passes the settings file on", async () => {
    const tell = "console.log(String(settingsFile));";
    expect((await endOf(service(tell))).text).toBe("undefined\n");
    expect((await endOf(service(tell, ["--settings", "a.yaml"]))).text).toBe("a.yaml\n");
    expect((await endOf(service(tell, ["--settings=a.yaml"]))).text).toBe("a.yaml\n");
    for (const args of [
      ["--settings"],
      ["--settings="],
      ["--settings", "a", "b"],
      ["--settings", "a", "--settings", "b"],
    ])
      expect((await endOf(service(tell, args))).code).toBe(2);
  });

  it("names the variables that LIM does not know, once", async () => {
    process.env.LIM_MATCHER_SERVICE_HOST = "10.0.0.1";
    try {
      const { code, text } = await endOf(service(""));
      expect(code).toBe(0);
      expect(JSON.parse(text)).toMatchObject({ level: "warn", variables: ["LIM_MATCHER_SERVICE_HOST"] });
    } finally {
      delete process.env.LIM_MATCHER_SERVICE_HOST;
    }
  });

  it("ends with 2 for bad settings, a line each", async () => {
    const end = await endOf(service(`throw new LimError("bad_settings", "A: one\\nB: two");`));
    expect(end.code).toBe(2);
    expect(end.text).toMatch(/^ {2}A: one$/m);
    expect(end.text).toMatch(/^ {2}B: two$/m);
  });

  it("ends with 1 for a failure and for one nobody caught", async () => {
    expect((await endOf(service(`throw new Error("cause");`))).code).toBe(1);
    const uncaught = `setTimeout(() => { throw new Error("cause"); }, 1); await new Promise(() => {});`;
    expect((await endOf(service(uncaught))).code).toBe(1);
  });

  it("stops cleanly on the first signal", async () => {
    const child = service(untilAborted, [], 60_000);
    await whenReady(child);
    child.kill("SIGTERM");
    expect((await endOf(child)).code).toBe(0);
  });

  it("is forced by time", async () => {
    const child = service(stuck);
    await whenReady(child);
    child.kill("SIGTERM");
    expect((await endOf(child)).code).toBe(3);
  });

  it("is forced by a later signal, but not by the echo of the first", async () => {
    const child = service(stuck, [], 60_000);
    await whenReady(child);
    child.kill("SIGINT");
    child.kill("SIGTERM");
    const again = setInterval(() => child.kill("SIGTERM"), 100);
    const end = await endOf(child);
    clearInterval(again);
    expect(end.code).toBe(3);
    expect(end.text).toContain("second signal");
    const [stopping, forced] = end.text
      .split("\n")
      .filter((line) => /stopping|second signal/.test(line))
      .map((line) => Date.parse(JSON.parse(line).time));
    expect(Number(forced) - Number(stopping)).toBeGreaterThanOrEqual(400);
  });
});
