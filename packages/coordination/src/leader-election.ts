import { commandClient } from "./connection.ts";
import { pause, redisFailure } from "./failures.ts";
import { Keys } from "./keys.ts";
import { acquireLease, type Lease } from "./lease.ts";
import type { Log } from "./log.ts";
import { loadScript, runScript } from "./lua.ts";
import type { KeyNames, LeaderElection, Leadership, RedisConnection } from "./port.ts";

/** Candidates ask this often per lease, within the bounds: a take-over takes the lease and at most one second more. */
const pollsPerLease = 20;
const minPollMs = 25;
const maxPollMs = 500;

const claimEpoch = loadScript("epoch_claim", (reply) => (reply === "" ? undefined : Number(reply)));

export interface LeaderElectionOptions {
  redis: RedisConnection;
  keys: KeyNames;
  leaseTtlMs: number;
  log?: Log;
}

export function createLeaderElection(options: LeaderElectionOptions): LeaderElection {
  return new RedlockElection(options);
}

interface Term {
  lease: Lease;
  epoch: number;
}

class RedlockElection implements LeaderElection {
  readonly #options: LeaderElectionOptions;
  readonly #keys: Keys;
  #term: Term | undefined;

  constructor(options: LeaderElectionOptions) {
    this.#options = options;
    this.#keys = new Keys(options.keys);
  }

  isLeader(): boolean {
    return this.#term?.lease.isHeld() ?? false;
  }

  /**
   * Resolves once the signal fired and `lead` came back. A `lead` that goes on after its own signal fired delays the
   * next candidacy of this process, not that of others. What `lead` throws ends its term and is logged.
   */
  async run(
    lead: (leadership: Leadership) => Promise<void>,
    { signal }: { signal: AbortSignal },
  ): Promise<void> {
    const { leaseTtlMs, log } = this.#options;
    const pollMs = Math.min(Math.max(leaseTtlMs / pollsPerLease, minPollMs), maxPollMs);
    while (!signal.aborted) {
      const term = await this.#stand(signal).catch((thrown: unknown) => {
        const failure = redisFailure(thrown, "leader election");
        if (failure.errorName === "bad_settings") throw failure;
        if (!signal.aborted) log?.debug({ reason: failure.message }, "Candidacy failed");
        return undefined;
      });
      if (term) await this.#serve(term, lead, signal);
      // Jitter keeps candidates that started together from asking together.
      await pause(pollMs * (0.75 + Math.random() / 2), signal);
    }
  }

  /** One candidacy: the lock, then the epoch. */
  async #stand(signal: AbortSignal): Promise<Term | undefined> {
    const { redis, leaseTtlMs, log } = this.#options;
    const client = commandClient(redis);
    let epoch: number | undefined;
    const lease = await acquireLease(
      {
        redis,
        resource: this.#keys.masterLock,
        ttlMs: leaseTtlMs,
        log,
        // A counter that was flushed, or claimed by another, makes every write of this master stale: claim anew.
        confirm: async () => epoch === undefined || (await client.get(this.#keys.epoch)) === String(epoch),
      },
      { signal },
    );
    if (!lease) return undefined;
    try {
      epoch = await runScript(
        client,
        claimEpoch,
        { keys: [this.#keys.masterLock, this.#keys.epoch], args: [lease.value] },
        { signal },
      );
    } catch (thrown) {
      await lease.release();
      throw thrown;
    }
    if (epoch !== undefined && lease.isHeld()) return { lease, epoch };
    await lease.release();
    return undefined;
  }

  async #serve(
    term: Term,
    lead: (leadership: Leadership) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { log } = this.#options;
    const { lease, epoch } = term;
    const over = new AbortController();
    this.#term = term;
    log?.info({ epoch }, "Became master");
    try {
      await lead({ epoch, signal: AbortSignal.any([lease.signal, signal, over.signal]) });
    } catch (thrown) {
      if (lease.isHeld() && !signal.aborted)
        log?.error({ epoch, err: thrown }, "The master's work failed, standing for election again");
    } finally {
      this.#term = undefined;
      over.abort();
      await lease.release();
      log?.info({ epoch }, "Is no longer master");
    }
  }
}
