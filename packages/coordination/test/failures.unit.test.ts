import { LimError } from "@lim/contracts";
import { ReplyError } from "ioredis";
import { describe, expect, it } from "vitest";
import { abortable, pause, redisFailure } from "../src/failures.ts";
import { defaultKeyNames, Keys } from "../src/keys.ts";

describe("failures of Redis", () => {
  it.each([
    [new ReplyError("LOADING Redis is loading the dataset in memory"), "redis_unavailable"],
    [new ReplyError("READONLY You can't write against a read only replica."), "redis_unavailable"],
    [new ReplyError("OOM command not allowed when used memory > 'maxmemory'."), "redis_unavailable"],
    [new ReplyError("NOAUTH Authentication required."), "bad_settings"],
    [new ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value"), "internal"],
    [new Error("Connection is closed."), "redis_unavailable"],
    [new DOMException("stopped", "AbortError"), "aborted"],
    [Object.assign(new Error("stopped"), { name: "AbortError", code: "ABORT_ERR" }), "aborted"],
    [
      Object.assign(new Error("aborted due to connection close"), { name: "AbortError" }),
      "redis_unavailable",
    ],
    [new LimError("bad_input", "x"), "bad_input"],
    ["text", "redis_unavailable"],
  ])("%s is %s", (thrown, errorName) => {
    const failure = redisFailure(thrown, "the command");
    expect(failure.errorName).toBe(errorName);
    // ioredis' error holds the command's arguments; they must not travel with ours.
    expect(failure).not.toHaveProperty("command");
    if (thrown instanceof ReplyError) expect(failure.cause).toBeUndefined();
  });

  it("says of a lost connection nothing that only the library's users understand", () => {
    const lost = Object.assign(new Error('Refer to "maxRetriesPerRequest" option'), {
      name: "MaxRetriesPerRequestError",
    });
    expect(redisFailure(lost, "PING").detail).toBe("PING: the connection is lost");
  });

  it("gives up on abort at once, whatever the promise does later", async () => {
    const controller = new AbortController();
    let fail: (error: Error) => void = () => undefined;
    const late = abortable(
      new Promise((_, reject) => {
        fail = reject;
      }),
      controller.signal,
    );
    controller.abort(new LimError("timeout", "deadline"));
    await expect(late).rejects.toMatchObject({ errorName: "timeout" });
    fail(new Error("nobody listens any more"));
    // It would outlast the test.
    await pause(600_000, controller.signal);
  });
});

describe("key names", () => {
  it("keep the coordination state in the master lock's slot", () => {
    const keys = new Keys(defaultKeyNames);
    expect(keys.masterLock).toBe("lim_manager_master");
    expect(keys.epoch).toBe("{lim_manager_master}:epoch");
    expect(keys.task("t")).toBe("{lim_manager_master}:task:t");
    expect(keys.labelTask("l")).toBe("{lim_manager_master}:label_task:l");
    expect(keys.lastPlan).toBe("{lim_manager_master}:last_plan");
    expect(keys.matchStream("l")).toBe("lim_match:l");
  });

  it.each(["", "a{b}", "}"])("refuse the lock's name %j", (masterLock) => {
    expect(() => new Keys({ ...defaultKeyNames, masterLock })).toThrow(/master lock/);
  });
});
