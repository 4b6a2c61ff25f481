import { Worker } from "node:worker_threads";
import { LimError } from "@lim/contracts";
import { vectorIndexLimits } from "../limits.ts";
import type { EngineReply, EngineRequest, EngineState } from "./protocol.ts";

export interface Step {
  message: EngineRequest;
  transfer?: ArrayBuffer[];
}

type Ok = Extract<EngineReply, { ok: true }>;

/** What one call sends: each step is answered before the next is asked for. A failed step is thrown into it. */
export type Steps<T> = Generator<Step, T, Ok>;

interface Call {
  steps: Steps<unknown>;
  /** Only reads, so it may run between the slices of a long addition. */
  readOnly: boolean;
  /** Queries of read-only calls that may run between two of its steps; 0 where it has one step only. */
  overtakers: number;
  /** Of a read-only call. */
  queries: number;
  signal: AbortSignal | undefined;
  onAbort: (() => void) | undefined;
  resolve: (value: unknown) => void;
  reject: (reason: LimError) => void;
}

/** Messages that the thread has at once: one at work and one waiting keep it busy. */
const window = 2;

/**
 * The thread of one index: calls in call order, but for read-only calls at the head of the queue, which run
 * between the slices of a long addition or change. Holds the process open only while calls are pending.
 */
export class EngineThread {
  state: EngineState = { slots: 0, count: 0, capacity: 0 };
  readonly worker: Worker;
  private readonly queue: Call[] = [];
  private readonly inFlight: Call[] = [];
  private sliced: Call | undefined;
  private overtaken = 0;
  private dead: LimError | undefined;
  private readonly exited: Promise<void>;
  private closing: Promise<void> | undefined;

  constructor() {
    this.worker = new Worker(
      new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url),
      // Flags of the process that make no sense for a thread (--input-type) would end it.
      { name: "lim-hnswlib", execArgv: [] },
    );
    this.worker.unref();
    this.worker.on("message", (reply: EngineReply) => this.onReply(reply));
    this.worker.on("error", (cause) => this.die(LimError.from(cause, "engine_failed")));
    this.worker.on("messageerror", (cause) => this.die(LimError.from(cause, "engine_failed")));
    this.exited = new Promise((resolve) => {
      this.worker.once("exit", (code) => {
        this.die(new LimError("engine_failed", `the engine's thread ended with exit code ${code}`));
        resolve();
      });
    });
  }

  call<T>(
    steps: Steps<T>,
    options: {
      signal?: AbortSignal | undefined;
      readOnly?: boolean;
      overtakers?: number;
      queries?: number;
    },
  ): Promise<T> {
    const { signal } = options;
    if (this.dead) return Promise.reject(this.dead);
    if (signal?.aborted) return Promise.reject(abortedBy(signal));
    if (this.queue.length >= vectorIndexLimits.maxQueuedCalls)
      return Promise.reject(
        new LimError("overloaded", `${vectorIndexLimits.maxQueuedCalls} calls wait for this index`),
      );
    return new Promise<T>((resolve, reject) => {
      const call: Call = {
        steps,
        readOnly: options.readOnly ?? false,
        overtakers: options.overtakers ?? 0,
        queries: options.queries ?? 1,
        signal,
        onAbort: undefined,
        resolve: resolve as (value: unknown) => void,
        reject,
      };
      if (signal) {
        call.onAbort = () => {
          const at = this.queue.indexOf(call);
          if (at === -1) return;
          this.queue.splice(at, 1);
          this.settle(call, () => reject(abortedBy(signal)));
        };
        signal.addEventListener("abort", call.onAbort, { once: true });
      }
      this.queue.push(call);
      this.worker.ref();
      this.pump();
    });
  }

  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    this.rejectAll(new LimError("aborted", "the index was closed"));
    this.worker.ref();
    this.worker.postMessage({ op: "close" } satisfies EngineRequest);
    const timer = setTimeout(() => void this.worker.terminate(), vectorIndexLimits.closeGraceMs);
    await this.exited;
    clearTimeout(timer);
  }

  private die(error: LimError): void {
    if (this.dead) return;
    this.rejectAll(
      error.errorName === "engine_failed"
        ? error
        : new LimError("engine_failed", error.detail, { cause: error }),
    );
    void this.worker.terminate();
  }

  private rejectAll(error: LimError): void {
    if (this.dead) return;
    this.dead = error;
    const calls = new Set([...this.inFlight, ...this.queue, ...(this.sliced ? [this.sliced] : [])]);
    this.inFlight.length = 0;
    this.queue.length = 0;
    this.sliced = undefined;
    for (const call of calls) this.settle(call, () => call.reject(error));
  }

  private settle(call: Call, how: () => void): void {
    if (call.onAbort) call.signal?.removeEventListener("abort", call.onAbort);
    how();
    if (this.inFlight.length + this.queue.length === 0 && !this.sliced && !this.closing) this.worker.unref();
  }

  private pump(): void {
    while (this.inFlight.length < window && !this.dead) {
      const call = this.pick();
      if (!call) return;
      this.advance(call, () => call.steps.next(...([] as unknown as [Ok])));
    }
  }

  /** The call whose first step is due. A sliced call's later steps are sent by `onReply`. */
  private pick(): Call | undefined {
    const head = this.queue[0];
    if (!head) return undefined;
    if (this.sliced) {
      if (!head.readOnly || this.overtaken >= this.sliced.overtakers) return undefined;
      this.overtaken += head.queries;
    } else if (head.overtakers > 0) this.sliced = head;
    this.queue.shift();
    return head;
  }

  private advance(call: Call, step: () => IteratorResult<Step, unknown>): void {
    let result: IteratorResult<Step, unknown>;
    try {
      result = step();
      if (!result.done) {
        this.worker.postMessage(result.value.message, result.value.transfer ?? []);
        this.inFlight.push(call);
        return;
      }
    } catch (thrown) {
      if (this.sliced === call) this.sliced = undefined;
      this.settle(call, () => call.reject(LimError.from(thrown, "engine_failed")));
      return;
    }
    if (this.sliced === call) this.sliced = undefined;
    const { value } = result;
    this.settle(call, () => call.resolve(value));
  }

  private onReply(reply: EngineReply): void {
    if (this.dead) return;
    this.state = reply.state;
    const call = this.inFlight.shift();
    if (!call) return;
    if (call === this.sliced) {
      // Searches that wait go before the next slice.
      this.overtaken = 0;
      this.pumpReads();
    }
    this.advance(call, () =>
      reply.ok
        ? call.steps.next(reply)
        : call.steps.throw(new LimError(reply.error.name, reply.error.detail)),
    );
    this.pump();
  }

  /** Sends every waiting read that may go before the next slice: the thread takes them in order before it. */
  private pumpReads(): void {
    for (let call = this.pick(); call; call = this.pick()) {
      const due = call;
      this.advance(due, () => due.steps.next(...([] as unknown as [Ok])));
    }
  }
}

export function abortedBy(signal: AbortSignal): LimError {
  const reason: unknown = signal.reason;
  return new LimError("aborted", reason instanceof Error ? reason.message : "cancelled by the caller");
}
