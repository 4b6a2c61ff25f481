import { Keys } from "./keys.ts";
import { acquireLease } from "./lease.ts";
import type { Log } from "./log.ts";
import type { KeyNames, LabelLocks, RedisConnection } from "./port.ts";

export function createLabelLocks(options: { redis: RedisConnection; keys: KeyNames; log?: Log }): LabelLocks {
  const keys = new Keys(options.keys);
  return {
    async tryAcquire(label, { ttlMs, signal }) {
      const { redis, log } = options;
      const lease = await acquireLease({ redis, resource: keys.labelLock(label), ttlMs, log }, { signal });
      return lease && { signal: lease.signal, release: () => lease.release() };
    },
  };
}
