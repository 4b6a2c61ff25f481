// The declarations are no module: whoever compiles this file needs to be led to them.
/// <reference path="./redlock.d.ts" />
import { LimError } from "@lim/contracts";
import Redlock, { ExecutionError, type Lock, ResourceLockedError } from "redlock";
import { commandClient } from "./connection.ts";
import { abortable, abortedError, redisFailure } from "./failures.ts";
import type { Log } from "./log.ts";
import type { Cancellable, RedisConnection } from "./port.ts";

const minLeaseTtlMs = 100;
/** A renewal is due three times a lease, so that two may fail. */
const renewalsPerLease = 3;
/** Tries per lease once a renewal failed, until the deadline ends the lease. */
const retriesPerLease = 20;

/** Part of a lease that is not trusted: clocks of two machines may run 1 % apart, and Redis expires to the millisecond. */
function driftMs(ttlMs: number): number {
  return Math.ceil(ttlMs * 0.01) + 2;
}

/** A Redlock that renews itself. It says who should work; it never proves that nobody else does (I4: epochs do). */
export interface Lease {
  /** What stands in the lock's key while it is held. */
  readonly value: string;
  /** Fires when the lease was lost or its deadline passed; not on release. */
  readonly signal: AbortSignal;
  /** Compares with the deadline, so that it is right even when the event loop was blocked and no timer has run yet. */
  isHeld(): boolean;
  /** Never rejects: a key that cannot be deleted expires. */
  release(): Promise<void>;
}

export interface LeaseRequest {
  redis: RedisConnection;
  resource: string;
  ttlMs: number;
  log?: Log | undefined;
  /** Asked after each renewal; the lease ends where it says no. */
  confirm?: () => Promise<boolean>;
}

const redlocks = new WeakMap<RedisConnection, Redlock>();

function redlockOf(redis: RedisConnection): Redlock {
  const known = redlocks.get(redis);
  if (known) return known;
  // No retries of its own: they cannot be cancelled.
  const made = new Redlock([commandClient(redis)], { retryCount: 0 });
  redlocks.set(redis, made);
  return made;
}

/** One try: undefined when another holds it; throws redis_unavailable or aborted. */
export async function acquireLease(request: LeaseRequest, options?: Cancellable): Promise<Lease | undefined> {
  const { resource, ttlMs } = request;
  if (!Number.isInteger(ttlMs) || ttlMs < minLeaseTtlMs)
    throw new LimError("bad_settings", `a lease lasts at least ${minLeaseTtlMs} ms, not ${ttlMs}`);
  if (options?.signal?.aborted) throw abortedError(options.signal);
  const redlock = redlockOf(request.redis);
  const sentAtMs = performance.now();
  const pending = redlock.acquire([resource], ttlMs);
  try {
    const lock = await abortable(pending, options?.signal);
    const lease = new RenewedLease(redlock, lock, request, sentAtMs);
    if (lease.isHeld()) return lease;
    await lease.release();
    return undefined;
  } catch (thrown) {
    if (options?.signal?.aborted)
      // The server may still grant it: give it back instead of blocking the others for a lease.
      pending.then((lock) => redlock.release(lock)).catch(() => undefined);
    const fault = await faultOf(thrown);
    if (!fault) return undefined;
    throw redisFailure(fault, `lock ${resource}`);
  }
}

/** What hindered a lock operation, undefined where every server answered that the lock is another's or gone. */
async function faultOf(thrown: unknown): Promise<unknown> {
  if (!(thrown instanceof ExecutionError)) return thrown;
  const votes = await Promise.all(thrown.attempts);
  return votes
    .flatMap((vote) => [...vote.votesAgainst.values()])
    .find((error) => !(error instanceof ResourceLockedError));
}

class RenewedLease implements Lease {
  readonly #redlock: Redlock;
  readonly #request: LeaseRequest;
  readonly #lost = new AbortController();
  #lock: Lock;
  /** By performance.now(): a set clock neither prolongs nor ends a lease. */
  #deadlineMs: number;
  #released = false;
  #renewal: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(redlock: Redlock, lock: Lock, request: LeaseRequest, sentAtMs: number) {
    this.#redlock = redlock;
    this.#lock = lock;
    this.#request = request;
    this.#deadlineMs = this.#deadlineFrom(sentAtMs);
    this.#watch(sentAtMs + request.ttlMs / renewalsPerLease);
  }

  get value(): string {
    return this.#lock.value;
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  isHeld(): boolean {
    if (this.#released || this.#lost.signal.aborted) return false;
    if (performance.now() < this.#deadlineMs) return true;
    this.#lose("it was not renewed before its deadline");
    return false;
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    this.#stopTimers();
    await this.#redlock.release(this.#lock).catch(() => undefined);
  }

  #deadlineFrom(sentAtMs: number): number {
    return sentAtMs + this.#request.ttlMs - driftMs(this.#request.ttlMs);
  }

  #stopTimers(): void {
    clearTimeout(this.#renewal);
    clearTimeout(this.#deadline);
  }

  /** Two timers: a renewal that hangs must not keep the deadline from being seen. */
  #watch(renewAtMs: number): void {
    this.#stopTimers();
    const now = performance.now();
    this.#renewal = setTimeout(() => void this.#renew(), Math.max(0, renewAtMs - now));
    this.#watchDeadline();
  }

  /** A timer may fire up to a millisecond early, so what is still held is looked at again. */
  #watchDeadline(): void {
    const leftMs = Math.max(1, Math.ceil(this.#deadlineMs - performance.now()));
    this.#deadline = setTimeout(() => {
      if (this.isHeld()) this.#watchDeadline();
    }, leftMs);
  }

  async #renew(): Promise<void> {
    // After a blocked event loop this timer may run before the deadline's.
    if (!this.isHeld()) return;
    const { ttlMs, resource, confirm, log } = this.#request;
    const sentAtMs = performance.now();
    try {
      // The library compares with the wall clock, which may be set; the deadline here is the judge.
      this.#lock.expiration = Number.MAX_SAFE_INTEGER;
      const extended = await this.#redlock.extend(this.#lock, ttlMs);
      const confirmed = confirm ? await confirm() : true;
      if (!this.isHeld()) return;
      if (!confirmed) return this.#lose("what it guards was taken over or lost");
      this.#lock = extended;
      this.#deadlineMs = this.#deadlineFrom(sentAtMs);
      this.#watch(sentAtMs + ttlMs / renewalsPerLease);
    } catch (thrown) {
      const fault = await faultOf(thrown);
      if (!this.isHeld()) return;
      if (!fault) return this.#lose("another took it, or Redis lost it");
      const reason = redisFailure(fault, resource).message;
      log?.warn({ resource, reason }, "Lock could not be renewed, trying again until its deadline");
      this.#watch(performance.now() + ttlMs / retriesPerLease);
    }
  }

  #lose(reason: string): void {
    const { resource, log } = this.#request;
    log?.warn({ resource, reason }, "Lock was lost");
    this.#lost.abort(new LimError("fenced", `lock ${resource} was lost: ${reason}`));
    // A renewal under way may have prolonged the key; without this the others would wait for it to expire.
    void this.release();
  }
}
