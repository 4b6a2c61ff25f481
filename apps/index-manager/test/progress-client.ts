import { get, type IncomingMessage } from "node:http";
import { eventually } from "@lim/testkit";

export interface SentEvent {
  event: string;
  // biome-ignore lint/suspicious/noExplicitAny: compared by tests, or parsed by the contract's schemas
  data: any;
}

/** A client of server-sent events that can stop reading. */
export interface ProgressClient {
  status: number;
  headers: IncomingMessage["headers"];
  /** All so far. */
  events: SentEvent[];
  /** Everything that came, comments included. */
  text(): string;
  untilEvents(what: string, is: (events: SentEvent[]) => boolean): Promise<SentEvent[]>;
  /** Waits until the server has closed the stream. */
  untilClosed(): Promise<void>;
  /** Reads nothing more, or goes on. */
  pause(): void;
  resume(): void;
  /** Goes away without a word. */
  leave(): void;
}

export async function followProgress(
  url: string,
  options: { headers?: Record<string, string>; method?: string } = {},
): Promise<ProgressClient> {
  const request = get(url, { agent: false, ...options });
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request.once("response", resolve).once("error", reject);
  });
  request.on("error", () => {});
  let text = "";
  let taken = 0;
  let isClosed = false;
  const events: SentEvent[] = [];
  response.setEncoding("utf8");
  response.on("error", () => {});
  response.on("close", () => {
    isClosed = true;
  });
  response.on("data", (chunk: string) => {
    text += chunk;
    for (let end = text.indexOf("\n\n", taken); end >= 0; end = text.indexOf("\n\n", taken)) {
      const block = text.slice(taken, end);
      taken = end + 2;
      const [event, data] = [/^event: (.+)$/m.exec(block)?.[1], /^data: (.+)$/m.exec(block)?.[1]];
      if (event !== undefined && data !== undefined) events.push({ event, data: JSON.parse(data) });
    }
  });
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    events,
    text: () => text,
    untilEvents: (what, is) => eventually(what, () => (is(events) ? events : undefined)),
    untilClosed: async () => {
      await eventually("the stream is closed", () => (isClosed ? true : undefined));
    },
    pause: () => response.pause(),
    resume: () => response.resume(),
    leave: () => request.destroy(),
  };
}
