// A child process per engine, asked by messages: its memory is its own, and the parent holds none of the index.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { LimError } from "@lim/contracts";

/** What a child can be asked to do: arguments and answers are structured clones. */
export type Operations = { [name: string]: (args: never) => Promise<unknown> };

interface Request {
  id: number;
  op: string;
  args: unknown;
}
type Reply = { id: number; value: unknown } | { id: number; error: string } | { progress: string };

export interface EngineProcess<O extends Operations> {
  /** Rejects where the operation failed, the child ended, the time limit passed or the signal was aborted. */
  call<K extends keyof O & string>(op: K, args: Parameters<O[K]>[0]): Promise<Awaited<ReturnType<O[K]>>>;
  stop(): Promise<void>;
}

export interface ProcessOptions {
  /** Module of this folder, without its ending. */
  module: string;
  name: string;
  limitMs: number;
  signal: AbortSignal;
  onProgress(text: string): void;
}

export function startEngine<O extends Operations>(options: ProcessOptions): EngineProcess<O> {
  const { module, name, limitMs, signal } = options;
  const child = fork(fileURLToPath(new URL(`./${module}.js`, import.meta.url)), [], {
    serialization: "advanced",
    execArgv: ["--expose-gc", "--enable-source-maps"],
  });
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let nextId = 0;
  let ended: Error | undefined;
  const end = (error: Error) => {
    ended ??= error;
    for (const { reject } of waiting.values()) reject(ended);
    waiting.clear();
    child.kill("SIGKILL");
  };
  const abort = () => end(new LimError("internal", `${name}: aborted`));
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  const exited = new Promise<void>((resolve) => {
    child.once("exit", (code, signalName) => {
      end(new LimError("internal", `${name}: the process ended (${signalName ?? code})`));
      signal.removeEventListener("abort", abort);
      resolve();
    });
  });
  child.on("error", end);
  child.on("message", (reply: Reply) => {
    if ("progress" in reply) return options.onProgress(`${name}: ${reply.progress}`);
    const asked = waiting.get(reply.id);
    waiting.delete(reply.id);
    if ("error" in reply) asked?.reject(new LimError("internal", `${name}: ${reply.error}`));
    else asked?.resolve(reply.value);
  });
  return {
    async call(op, args) {
      if (ended) throw ended;
      const asked = Promise.withResolvers<unknown>();
      const request: Request = { id: nextId++, op, args };
      waiting.set(request.id, asked);
      const timer = setTimeout(
        () => end(new LimError("internal", `${name}: ${op} took longer than ${limitMs / 1000} s`)),
        limitMs,
      );
      child.send(request);
      try {
        return (await asked.promise) as never;
      } finally {
        clearTimeout(timer);
      }
    },
    async stop() {
      end(new LimError("internal", `${name}: stopped`));
      await exited;
    },
  };
}

/** The child's side: answers one request at a time. */
export function serveEngine(operations: Operations): void {
  let turn: Promise<unknown> = Promise.resolve();
  process.on("message", ({ id, op, args }: Request) => {
    turn = turn.then(async () => {
      try {
        const run = operations[op] as ((args: unknown) => Promise<unknown>) | undefined;
        if (!run) throw new Error(`no operation ${op}`);
        process.send?.({ id, value: await run(args) });
      } catch (error) {
        process.send?.({
          id,
          error: error instanceof Error ? (error.stack ?? error.message) : String(error),
        });
      }
    });
  });
  process.on("disconnect", () => process.exit());
}

export function sendProgress(progress: string): void {
  process.send?.({ progress });
}
