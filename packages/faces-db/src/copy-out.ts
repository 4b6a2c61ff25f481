import type pg from "pg";
import { ReadSocket } from "./read-socket.ts";

const codes = { copyData: 0x64, copyDone: 0x63, copyOut: 0x48, error: 0x45 } as const;
/** Messages that may come at any time: a notice, a changed parameter, a notification. */
const interspersed: ReadonlySet<number> = new Set([0x4e, 0x53, 0x41]);
const messageHeadBytes = 5;

export interface CopyOutHandlers {
  /** Content of the copy: `chunk` from `from` to `to`, valid during the call. */
  onContent(chunk: Buffer, from: number, to: number): void;
  /** A chunk of the connection was read through. Returns milliseconds until the next one may be read. */
  onChunk(bytes: number): number;
}

/**
 * `COPY … TO STDOUT` as a query of node-postgres that hands on what comes without copying it. It takes the connection's
 * data while the copy runs, as pg-copy-streams does, and stops reading whenever it is told to: then Postgres waits too.
 */
export class CopyOut {
  /** Resolves once Postgres has sent everything and is ready for the next query. */
  readonly ended: Promise<void>;
  readonly #text: string;
  readonly #handlers: CopyOutHandlers;
  readonly #settle: PromiseWithResolvers<void>;
  #stream: pg.Connection["stream"] | undefined;
  #listenerOfPg: ((chunk: Buffer) => void) | undefined;
  #held = false;
  #paced: NodeJS.Timeout | undefined;
  #code = 0;
  /** Of the message's head: how many bytes have come, and its length so far. */
  #headBytes = 0;
  #length = 0;
  /** Content of the message that has not come yet. */
  #left = 0;

  constructor(text: string, handlers: CopyOutHandlers) {
    this.#text = text;
    this.#handlers = handlers;
    this.#settle = Promise.withResolvers();
    this.ended = this.#settle.promise;
    this.ended.catch(() => {});
  }

  /** Reads no further until `resume`. */
  pause(): void {
    this.#held = true;
    this.#stream?.pause();
  }

  resume(): void {
    this.#held = false;
    if (!this.#paced) this.#stream?.resume();
  }

  // What node-postgres calls.

  submit(connection: pg.Connection): void {
    const { stream } = connection;
    const [listener, ...others] = stream.listeners("data");
    if (!listener || others.length > 0) throw new Error("the connection is not read by node-postgres alone");
    this.#stream = stream;
    this.#listenerOfPg = listener as (chunk: Buffer) => void;
    stream.removeListener("data", this.#listenerOfPg);
    if (stream instanceof ReadSocket) stream.onBytes = this.#onData;
    else stream.on("data", this.#onData);
    if (this.#held) stream.pause();
    (connection as pg.Connection & { query(text: string): void }).query(this.#text);
  }

  handleError(error: unknown): void {
    this.#detach();
    this.#settle.reject(error);
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#settle.resolve();
  }

  readonly #onData = (chunk: Buffer): void => {
    try {
      const end = this.#read(chunk);
      if (end !== undefined) {
        const listener = this.#detach();
        if (end < chunk.length) listener?.(Buffer.from(chunk.subarray(end)));
        return;
      }
      this.#wait(this.#handlers.onChunk(chunk.length));
    } catch (thrown) {
      // What Postgres sends from here on is of no use: the connection cannot be used again.
      this.#settle.reject(thrown);
      this.#stream?.destroy();
    }
  };

  #wait(ms: number): void {
    if (ms <= 0) return;
    this.#stream?.pause();
    this.#paced = setTimeout(() => {
      this.#paced = undefined;
      const again = this.#handlers.onChunk(0);
      if (again > 0) this.#wait(again);
      else if (!this.#held) this.#stream?.resume();
    }, ms);
  }

  /** Reads messages up to the chunk's end. Where the copy ends before, returns the place from which on node-postgres reads. */
  #read(chunk: Buffer): number | undefined {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left === 0) {
        if (this.#headBytes === 0) {
          this.#code = chunk[at] as number;
          if (this.#code === codes.error) return at;
          this.#length = 0;
          this.#headBytes = 1;
          at++;
        }
        while (this.#headBytes < messageHeadBytes && at < chunk.length) {
          this.#length = (this.#length << 8) | (chunk[at++] as number);
          this.#headBytes++;
        }
        if (this.#headBytes < messageHeadBytes) return undefined;
        this.#headBytes = 0;
        this.#left = this.#length - 4;
        if (this.#left < 0) throw new Error(`Postgres sent a message of ${this.#length} bytes during a copy`);
      }
      const to = Math.min(chunk.length, at + this.#left);
      if (this.#code === codes.copyData) this.#handlers.onContent(chunk, at, to);
      this.#left -= to - at;
      at = to;
      if (this.#left === 0 && this.#isLast()) return at;
    }
    return undefined;
  }

  #isLast(): boolean {
    if (this.#code === codes.copyDone) return true;
    if (this.#code === codes.copyData || this.#code === codes.copyOut || interspersed.has(this.#code))
      return false;
    throw new Error(`Postgres sent a message "${String.fromCharCode(this.#code)}" during a copy`);
  }

  /** Gives the connection back to node-postgres and returns its listener; undefined where it was given back before. */
  #detach(): ((chunk: Buffer) => void) | undefined {
    clearTimeout(this.#paced);
    this.#paced = undefined;
    const stream = this.#stream;
    const listener = this.#listenerOfPg;
    this.#stream = undefined;
    this.#listenerOfPg = undefined;
    if (!stream || !listener) return undefined;
    if (stream instanceof ReadSocket) stream.onBytes = undefined;
    else stream.removeListener("data", this.#onData);
    stream.on("data", listener);
    stream.resume();
    return listener;
  }
}
