import { commandClient } from "./connection.ts";
import { fixedKeys } from "./keys.ts";
import type { Log } from "./log.ts";
import { loadScript, runScript } from "./lua.ts";
import type { Cancellable, DeadLetters, RedisConnection } from "./port.ts";

const script = loadScript("dead_letters", (reply) => {
  const [all = 0, old = 0] = reply as number[];
  return { all, old };
});

export function createDeadLetters(options: { redis: RedisConnection; log?: Log }): DeadLetters {
  const client = commandClient(options.redis);
  const run = (what: "count" | "trim", { olderThanMs, signal }: Cancellable & { olderThanMs: number }) =>
    runScript(client, script, { keys: [fixedKeys.deadLetters], args: [olderThanMs, what] }, { signal });
  return {
    count: (input) => run("count", input),
    async trim(input) {
      const { all, old } = await run("trim", input);
      if (old > 0) options.log?.debug({ removed: old, left: all - old }, "old dead letters were removed");
      return old;
    },
  };
}
