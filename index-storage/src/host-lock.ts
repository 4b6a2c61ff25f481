import { randomUUID } from "node:crypto";
import { type FileHandle, link, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import { assertLive, errorCode, isMissing } from "./files.ts";

export interface HostLockTimes {
  /** How often a holder shows that it lives. */
  heartbeatMs: number;
  /** A holder that showed nothing for so long is dead, by the waiter's own clock. */
  staleMs: number;
  /** How often a waiter looks. */
  pollMs: number;
  /** A holder whose work has not moved for so long shows nothing any more. */
  stallMs: number;
  /** Longest wait for a lock. */
  maxWaitMs: number;
}

/** One state of a lock's file: another holder has another file, a beat of its heart another time. */
async function stateOf(path: string): Promise<string | undefined> {
  try {
    const { ino, mtimeNs } = await stat(path, { bigint: true });
    return `${ino}:${mtimeNs}`;
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw thrown;
  }
}

export interface HostLock {
  /** The work goes on: without it the lock is lost after `stallMs`. */
  moved(): void;
  release(): Promise<void>;
}

/**
 * Locks between the processes of one host, each a file with a heartbeat: it outlives a killed holder by `staleMs`. A
 * holder that was stopped for longer may wake beside the next one, so it is for sparing work, never for correctness.
 */
export class HostLocks {
  private readonly folder: string;
  private readonly times: HostLockTimes;

  constructor(folder: string, times: HostLockTimes) {
    this.folder = folder;
    this.times = times;
  }

  /**
   * Undefined as soon as `unless` says that it is not needed any more. Throws `timeout` past the longest wait. Of those
   * who wait one hears `onTakenAway` for each holder that died, which need not be the one who gets the lock then.
   */
  async acquire(
    name: string,
    options: { signal: AbortSignal | undefined; unless: () => Promise<boolean>; onTakenAway: () => void },
  ): Promise<HostLock | undefined> {
    const { pollMs, staleMs, maxWaitMs } = this.times;
    const path = join(this.folder, name);
    const startedMs = performance.now();
    let seen: string | undefined;
    let seenAtMs = startedMs;
    while (performance.now() - startedMs <= maxWaitMs) {
      assertLive(options.signal);
      if (await options.unless()) return undefined;
      const handle = await this.tryCreate(path);
      if (handle) return new HeldLock(path, handle, this.times);
      const state = await stateOf(path);
      if (state === undefined) continue;
      if (state !== seen) {
        seen = state;
        seenAtMs = performance.now();
      } else if (performance.now() - seenAtMs > staleMs) {
        if (await this.takeAway(path, state)) options.onTakenAway();
        continue;
      }
      await pause(pollMs);
    }
    throw new LimError("timeout", `lock ${path} was not free within ${maxWaitMs} ms`);
  }

  private async tryCreate(path: string): Promise<FileHandle | undefined> {
    for (let made = false; ; made = true) {
      try {
        return await open(path, "wx");
      } catch (thrown) {
        if (errorCode(thrown) === "EEXIST") return undefined;
        if (!isMissing(thrown) || made) throw thrown;
        await mkdir(dirname(path), { recursive: true });
      }
    }
  }

  /** Of several waiters that find a holder dead one gets its file. One that was too late gives the next holder's back. */
  private async takeAway(path: string, dead: string): Promise<boolean> {
    const away = `${path}.${randomUUID()}`;
    try {
      await rename(path, away);
    } catch (thrown) {
      if (isMissing(thrown)) return false;
      throw thrown;
    }
    const isDead = (await stateOf(away)) === dead;
    if (!isDead) await link(away, path).catch(() => undefined);
    await rm(away, { force: true });
    return isDead;
  }
}

class HeldLock implements HostLock {
  private readonly path: string;
  private readonly handle: FileHandle;
  private readonly timer: NodeJS.Timeout;
  private movedAtMs = performance.now();

  constructor(path: string, handle: FileHandle, times: HostLockTimes) {
    this.path = path;
    this.handle = handle;
    this.timer = setInterval(() => {
      if (performance.now() - this.movedAtMs > times.stallMs) return;
      const now = new Date();
      // Without its heartbeat the lock is lost, which costs the others a copy and nothing else.
      handle.utimes(now, now).catch(() => undefined);
    }, times.heartbeatMs);
    this.timer.unref();
  }

  moved(): void {
    this.movedAtMs = performance.now();
  }

  async release(): Promise<void> {
    clearInterval(this.timer);
    try {
      const [own, there] = await Promise.all([this.handle.stat(), stat(this.path)]);
      if (own.ino === there.ino) await rm(this.path, { force: true });
    } catch {
      // Taken away, or the folder is gone: nothing is left to give back.
    } finally {
      await this.handle.close();
    }
  }
}
