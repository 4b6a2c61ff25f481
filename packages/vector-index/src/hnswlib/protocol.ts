import type { ErrorName } from "@lim/contracts";

/** Messages to the thread that owns one hnswlib index. Each is answered by one reply, in order. */
export type EngineRequest =
  | { op: "create"; dim: number; capacity: number; m: number; efConstruction: number; seed: number }
  | { op: "load"; path: string; dim: number; slots: number; removed: Uint32Array; m: number }
  | { op: "check"; vectors: Float32Array; remove: Uint32Array }
  /** Adds rows that no search returns before the next change. */
  | { op: "insert"; first: number; add: Float32Array }
  | { op: "change"; first: number; add: Float32Array; remove: Uint32Array }
  | { op: "search"; queries: Float32Array; k: number; ef: number }
  | { op: "read"; positions: Uint32Array }
  | { op: "save"; path: string }
  | { op: "close" };

export interface EngineState {
  slots: number;
  count: number;
  capacity: number;
}

export type EngineReply =
  | {
      ok: true;
      state: EngineState;
      /** Results of search and read; absent for the others. */
      counts?: Uint32Array;
      positions?: Uint32Array;
      values?: Float32Array;
    }
  | { ok: false; state: EngineState; error: { name: ErrorName; detail: string } };

/** An error that the thread reports by name; its own `LimError` would cost it the load of the schemas. */
export class EngineFault extends Error {
  readonly faultName: ErrorName;

  constructor(faultName: ErrorName, detail: string) {
    super(detail);
    this.faultName = faultName;
  }
}
