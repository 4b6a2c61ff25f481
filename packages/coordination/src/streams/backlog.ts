import type { Redis } from "ioredis";
import { redisFailure } from "../failures.ts";
import type { Keys } from "../keys.ts";

/** Labels that one look asks for. */
export const maxBacklogLabels = 1_000;
/** From a look's begin to its end at most: who asks is a scrape, which has a time of its own. */
const backlogTimeoutMs = 1_000;

/** Requests in the streams of some labels, of all consumers together. */
export interface StreamBacklog {
  /** Read by nobody yet. */
  lag: number;
  /** Read and not answered yet. */
  pending: number;
}

/**
 * Sums over the first `maxBacklogLabels` of the labels. What is answered is deleted, so what is in a stream and not
 * pending was read by nobody. Two commands a label, none of which blocks. Throws redis_unavailable.
 */
export async function readBacklog(
  client: Redis,
  keys: Keys,
  labels: readonly string[],
): Promise<StreamBacklog> {
  let timer: NodeJS.Timeout | undefined;
  try {
    const asked = labels.slice(0, maxBacklogLabels).map(async (label) => {
      const stream = keys.matchStream(label);
      const [length, pending] = await Promise.all([client.xlen(stream), pendingOf(client, keys, stream)]);
      return { lag: Math.max(0, length - pending), pending };
    });
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer in ${backlogTimeoutMs} ms`)), backlogTimeoutMs);
    });
    const all = await Promise.race([Promise.all(asked), timeout]);
    return {
      lag: all.reduce((sum, one) => sum + one.lag, 0),
      pending: all.reduce((sum, one) => sum + one.pending, 0),
    };
  } catch (thrown) {
    throw redisFailure(thrown, "XLEN");
  } finally {
    clearTimeout(timer);
  }
}

async function pendingOf(client: Redis, keys: Keys, stream: string): Promise<number> {
  try {
    const [count] = (await client.xpending(stream, keys.names.consumerGroup)) as [number];
    return Number(count);
  } catch (thrown) {
    // The group is made by the first reader.
    if (thrown instanceof Error && thrown.message.startsWith("NOGROUP")) return 0;
    throw thrown;
  }
}
