// The package has types, but its `exports` hide them. Only what the lease uses is declared.
declare module "redlock" {
  import type { Redis } from "ioredis";

  export class ResourceLockedError extends Error {}
  export interface Votes {
    readonly votesAgainst: ReadonlyMap<Redis, Error>;
  }
  export class ExecutionError extends Error {
    readonly attempts: readonly Promise<Votes>[];
  }
  export interface Lock {
    readonly value: string;
    /** By the local wall clock. */
    expiration: number;
  }
  class Redlock {
    constructor(clients: Iterable<Redis>, settings: { retryCount: number });
    acquire(resources: string[], durationMs: number): Promise<Lock>;
    extend(lock: Lock, durationMs: number): Promise<Lock>;
    release(lock: Lock): Promise<unknown>;
  }

  // biome-ignore lint/style/noDefaultExport: it is how the package exports the class
  export { Redlock as default };
}
