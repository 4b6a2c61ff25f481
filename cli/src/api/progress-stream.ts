import { LimError, type Task, taskProgressEventSchema, taskSchema } from "@lim/contracts";
import type { z } from "zod";
import { type ApiConnection, addressOf, errorOf, headersOf, parseJson } from "./http.ts";

/** The manager sends something at least every 15 s: silence for longer is a dead connection. */
const silentLimitMs = 45_000;
const maxEventChars = 1_000_000;

export type ProgressEvent =
  | { kind: "progress"; state: z.infer<typeof taskProgressEventSchema> }
  /** The task as it ended; nothing comes after it. */
  | { kind: "end"; task: Task }
  /** Its record is gone; nothing comes after it. */
  | { kind: "removed" };

/**
 * Events of one task until `end` or `removed`. Ends without either where the stream broke or is not to be had: the
 * caller goes on by polling. Throws what the API says of the task or the token, and when the signal fires.
 */
export async function* readProgress(
  connection: ApiConnection,
  taskId: string,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<ProgressEvent> {
  const silent = new AbortController();
  const timer = setTimeout(() => silent.abort(), silentLimitMs);
  const path = `/1/tasks/${taskId}/progress`;
  try {
    const response = await fetch(addressOf(connection, { path }), {
      signal: AbortSignal.any([signal, silent.signal]),
      headers: { ...headersOf(connection), accept: "text/event-stream" },
    });
    if (!response.ok) {
      const error = errorOf(connection, { method: "GET", path }, response.status, await response.text());
      // Too many streams, or a manager that is shutting down: the task itself can still be read.
      if (response.status >= 500) return;
      throw error;
    }
    if (!response.headers.get("content-type")?.startsWith("text/event-stream") || response.body === null)
      return;
    const decoded = response.body.pipeThrough(new TextDecoderStream());
    for await (const { name, data } of parseEvents(decoded, () => timer.refresh())) {
      const event = eventOf(name, data);
      if (event === undefined) continue;
      yield event;
      if (event.kind !== "progress") return;
    }
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof LimError) throw thrown;
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

function eventOf(name: string, data: string): ProgressEvent | undefined {
  if (name === "removed") return { kind: "removed" };
  if (name === "end") {
    const task = taskSchema.safeParse(parseJson(data));
    return task.success ? { kind: "end", task: task.data } : undefined;
  }
  const state = taskProgressEventSchema.safeParse(parseJson(data));
  return name === "progress" && state.success ? { kind: "progress", state: state.data } : undefined;
}

/** Events of a `text/event-stream`. `onData` is called for whatever arrives, comments included. */
export async function* parseEvents(
  chunks: AsyncIterable<string>,
  onData: () => void = () => undefined,
): AsyncGenerator<{ name: string; data: string }> {
  let rest = "";
  let name = "";
  let data: string[] = [];
  for await (const chunk of chunks) {
    onData();
    const lines = (rest + chunk).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    if (rest.length > maxEventChars) throw new Error("an event is too long");
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) yield { name: name === "" ? "message" : name, data: data.join("\n") };
        name = "";
        data = [];
        continue;
      }
      const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (field === "event") name = value ?? "";
      if (field === "data") data.push(value ?? "");
    }
  }
}
