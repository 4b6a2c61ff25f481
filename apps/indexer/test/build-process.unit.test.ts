import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { defaults } from "@lim/contracts";
import { expect, it } from "vitest";
import { startBuildProcess } from "../src/build-process.ts";

it("I10 a build process that does not end after its last word is killed, and its word counts", async () => {
  const build = startBuildProcess(
    {
      type: "build",
      work: randomUUID(),
      request: {
        task_id: randomUUID(),
        list_id: randomUUID(),
        attempt: 1,
        epoch: 1,
        mode: "rebuild",
        engine: defaults.engine,
        params: { m: 16, ef_construction: 200 },
        descriptor_version: 1,
        dim: 8,
      },
      databaseUrl: "postgres://127.0.0.1/none",
      storageRoot: "none",
      memoryLimitBytes: 2 ** 40,
      snapshotBytesPerS: 0,
      logLevel: "silent",
    },
    { module: fileURLToPath(new URL("./fixtures/lingering-build.mjs", import.meta.url)), exitGraceMs: 100 },
  );
  const end = await build.ended;
  expect(end).toMatchObject({ report: { count: 3, revision: 7 }, error: undefined });
  expect(() => process.kill(build.pid ?? 0, 0)).toThrow("ESRCH");
}, 15_000);
