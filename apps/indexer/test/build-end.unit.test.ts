import { LimError } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { nameEnd, type Seen } from "../src/build-process.ts";
import { estimateNeed, preflight } from "../src/preflight.ts";
import { readSettings } from "../src/settings.ts";

const noneSkipped = { wrong_length: 0, not_finite: 0, zero_norm: 0 };
const limitBytes = 512 * 1024 * 1024;
const end = (seen: Partial<Seen>) =>
  nameEnd({ progress: null, peakBytes: 0, stderr: "", ...seen }, limitBytes);
const killed = { code: null, signal: "SIGKILL" } as const;

describe("the name of a build's end", () => {
  it("is success once it told that it published, however its process ended", () => {
    const last = {
      type: "published",
      count: 1,
      revision: 1,
      sizeBytes: 1,
      skipped: noneSkipped,
      phases: {},
    } as const;
    expect(end({ last, exit: killed, cancelled: true })).toMatchObject({ report: last, error: undefined });
  });

  it("tells who killed it", () => {
    expect(end({ exit: killed }).error?.errorName).toBe("build_crashed");
    expect(end({ exit: killed }).error?.detail).toContain("SIGKILL");
    expect(end({ exit: killed, killedForMemory: true, peakBytes: 2 * limitBytes }).error?.detail).toContain(
      "1,024 MiB",
    );
    expect(end({ exit: killed, killedForMemory: true }).error?.errorName).toBe("out_of_memory");
    expect(end({ exit: killed, killedByKernel: true }).error?.errorName).toBe("out_of_memory");
    expect(end({ exit: killed, cancelled: true }).error?.errorName).toBe("build_cancelled");
  });

  it("quotes a crash's signal or code and its last words", () => {
    const segfault = end({ exit: { code: null, signal: "SIGSEGV" }, stderr: "native stack\n" }).error;
    expect(segfault?.errorName).toBe("build_crashed");
    expect(segfault?.detail).toMatch(/SIGSEGV.*native stack/);
    expect(end({ exit: { code: 7, signal: null } }).error?.detail).toContain("code 7");
  });

  it("knows a failed allocation by its words", () => {
    const abort = { code: null, signal: "SIGABRT" } as const;
    for (const stderr of [
      "terminate called after throwing 'std::bad_alloc'",
      "FATAL ERROR: JavaScript heap out of memory",
      "# Fatal process out of memory: Failed to reserve virtual memory for CodeRange",
      "terminate called after throwing an instance of 'std::runtime_error'\n  what():  Not enough memory",
    ])
      expect(end({ exit: abort, stderr }).error?.errorName, stderr).toBe("out_of_memory");
  });

  it("passes coded errors on and takes an abort for what caused it", () => {
    const failed = (error: LimError) => ({ type: "failed", error: error.toBody() }) as const;
    const exit = { code: 1, signal: null };
    expect(end({ last: failed(new LimError("list_not_found", "gone")), exit }).error).toMatchObject({
      errorName: "list_not_found",
      detail: "gone",
    });
    const aborted = failed(new LimError("aborted", "stop"));
    expect(end({ last: aborted, exit, cancelled: true }).error?.errorName).toBe("build_cancelled");
    expect(end({ last: aborted, exit }).error?.errorName).toBe("build_crashed");
  });
});

describe("preflight", () => {
  const engine = { estimateMemoryBytes: ({ capacity }: { capacity: number }) => capacity * 2000 };
  const request = { dim: 512, params: { m: 16, ef_construction: 200 } };
  const limits = { faces: 1_000_000, dim: 512, storageRoot: import.meta.dirname };

  it("refuses with the numbers what memory or disk cannot hold", async () => {
    const need = estimateNeed(engine, request, 1_000_000);
    await expect(preflight(need, { ...limits, memoryLimitBytes: limitBytes })).rejects.toMatchObject({
      errorName: "out_of_memory",
      detail: expect.stringMatching(/1000000 faces of 512 dimensions need about [\d,]+ MiB.*512 MiB/),
    });
    const huge = { ...need, diskBytes: 2 ** 60 };
    await expect(preflight(huge, { ...limits, memoryLimitBytes: 2 ** 50 })).rejects.toMatchObject({
      errorName: "disk_full",
      detail: expect.stringMatching(/MiB of disk, [\d,]+ MiB are free/),
    });
  });

  it("lets pass what fits", async () => {
    await preflight(estimateNeed(engine, request, 1000), { ...limits, memoryLimitBytes: limitBytes });
  });
});

describe("settings", () => {
  const required = {
    REDIS_URL: "redis://redis:6379",
    DATABASE_URL: "postgres://u:secret@db/lim",
    LIM_STORAGE_ROOT: "/data/indexes",
  };

  it("have defaults for all but servers and storage", () => {
    const settings = readSettings(required);
    expect(settings).toMatchObject({ host: "0.0.0.0", port: 5180, registrationTtlMs: 10_000 });
    expect(settings.originOf(1234)).toMatch(/^http:\/\/[^/]+:1234$/);
    const originOn = (host: string) => readSettings({ ...required, LIM_INDEXER_HOST: host }).originOf(1);
    expect(originOn("127.0.0.1")).toBe("http://127.0.0.1:1");
    expect(originOn("::1")).toBe("http://[::1]:1");
    expect(settings.memoryLimitBytes).toBeGreaterThan(0);
    expect(readSettings({ ...required, LIM_INDEXER_ORIGIN: "http://indexer-1:80/" }).originOf(1)).toBe(
      "http://indexer-1:80",
    );
  });

  it("name every fault at once and no secret", () => {
    const faulty = { LIM_INDEXER_PORT: "70000", DATABASE_URL: "not a url, secret", LIM_INDEXER_TTL_MS: "1" };
    try {
      readSettings(faulty);
      expect.unreachable();
    } catch (error) {
      const { detail } = LimError.from(error);
      for (const name of [
        "LIM_INDEXER_PORT",
        "LIM_STORAGE_ROOT",
        "REDIS_URL",
        "DATABASE_URL",
        "LIM_INDEXER_TTL_MS",
      ])
        expect(detail).toContain(name);
      expect(detail).not.toContain("not a url");
    }
  });
});
