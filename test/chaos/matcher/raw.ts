import { randomUUID } from "node:crypto";
import {
  encodeDescriptor,
  LimError,
  type MatchReply,
  parseMatchReply,
  replyStreamPrefix,
} from "@lim/contracts";
import { Redis } from "ioredis";
import { type Findings, textOf } from "../findings.ts";
import { marginMs, rawSlackMs } from "./requests.ts";

const blockMs = 200;
const pauseMs = 50;
const streamTtlMs = 120_000;
/** So long after its first reply may another one come. */
const rememberedMs = 120_000;
const streamPrefix = "lim_match:";

export interface RawRequest {
  label: string;
  timeoutMs: number;
  limit: number;
  minRevision?: number | undefined;
  descriptor: Buffer;
}

/** The first reply; undefined where none came until the deadline and the margin were over, or Redis did not take the request. */
export type RawOutcome = { reply: MatchReply } | { unsent: string } | undefined;

/** A caller by the book of the protocol: XADD by hand, replies from a stream or a channel, no client library. */
export interface RawCaller {
  /** All in one write; each outcome comes on its own. */
  ask(requests: readonly RawRequest[]): Promise<RawOutcome>[];
  close(): Promise<void>;
}

interface Waiting {
  settle(outcome: RawOutcome): void;
  settled: boolean;
}

export async function openRawCaller(options: {
  url: string;
  over: "stream" | "channel";
  findings: Findings;
  /** Called for replies after the first. */
  onExtra?: (reply: MatchReply) => void;
}): Promise<RawCaller> {
  const { url, over, findings } = options;
  const destination = `${over === "stream" ? replyStreamPrefix : "chaos-channel:"}${randomUUID()}`;
  const command = new Redis(url, { commandTimeout: 2_000, maxRetriesPerRequest: 1 });
  const reader = new Redis(url, { maxRetriesPerRequest: null });
  for (const client of [command, reader]) client.on("error", () => {});
  const waiting = new Map<string, Waiting>();
  const stop = new AbortController();

  const take = (text: string) => {
    let reply: MatchReply;
    try {
      reply = parseMatchReply(text);
    } catch (error) {
      findings.violation(`a raw caller got what is no reply: ${textOf(error)}`);
      return;
    }
    const one = waiting.get(reply.rid);
    if (!one) findings.violation(`a raw caller got a reply to ${reply.rid}, which it never asked`);
    else if (one.settled) {
      findings.count("answers, raw", "again or late, not accepted");
      options.onExtra?.(reply);
    } else one.settle({ reply });
  };
  const readStream = async () => {
    let from = "0-0";
    while (!stop.signal.aborted)
      try {
        // Matchers write to a reply stream only where it is; a flush takes it away.
        if ((await reader.exists(destination)) === 0) {
          from = "0-0";
          await reader.xadd(destination, "*", "hello", "1");
        }
        await reader.pexpire(destination, streamTtlMs);
        const streams = await reader.xread("BLOCK", blockMs, "STREAMS", destination, from);
        for (const [id, fields] of streams?.[0]?.[1] ?? []) {
          from = id;
          if (fields[0] === "reply" && fields[1] !== undefined) take(fields[1]);
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
  };
  let reading: Promise<void> = Promise.resolve();
  if (over === "stream") {
    await command.xadd(destination, "*", "hello", "1");
    reading = readStream();
  } else {
    reader.on("message", (_channel, text) => take(text));
    await reader.subscribe(destination);
  }

  const fieldsOf = (rid: string, request: RawRequest): (string | Buffer | number)[] => {
    const { timeoutMs, limit, minRevision, descriptor } = request;
    return [
      ...["rid", rid, "descriptor", descriptor, "limit", limit, "timeout_ms", timeoutMs],
      ...[over === "stream" ? "response_stream" : "response_channel", destination],
      ...(minRevision === undefined ? [] : ["min_revision", minRevision]),
    ];
  };
  return {
    ask(requests) {
      const rids = requests.map(() => randomUUID());
      const outcomes = requests.map((request, at) => {
        const rid = rids[at] ?? "";
        return new Promise<RawOutcome>((resolve) => {
          const one: Waiting = {
            settled: false,
            settle(outcome) {
              if (one.settled) return;
              one.settled = true;
              clearTimeout(timer);
              setTimeout(() => waiting.delete(rid), rememberedMs).unref();
              resolve(outcome);
            },
          };
          const giveUp = () => {
            timer = setTimeout(() => one.settle(undefined), rawSlackMs / 2);
          };
          let timer = setTimeout(giveUp, request.timeoutMs + marginMs.raw);
          waiting.set(rid, one);
        });
      });
      const pipeline = command.pipeline();
      requests.forEach((request, at) => {
        pipeline.xadd(`${streamPrefix}${request.label}`, "*", ...fieldsOf(rids[at] ?? "", request));
      });
      const refuse = (at: number, thrown: unknown) =>
        waiting.get(rids[at] ?? "")?.settle({ unsent: textOf(thrown) });
      void pipeline.exec().then(
        (results) => {
          for (const [at, [error]] of (results ?? []).entries()) if (error) refuse(at, error);
        },
        (error: unknown) => {
          for (const at of requests.keys()) refuse(at, error);
        },
      );
      return outcomes;
    },
    async close() {
      stop.abort();
      await Promise.race([reading, new Promise((resolve) => setTimeout(resolve, 1_000))]);
      await command.del(destination).catch(() => undefined);
      reader.disconnect();
      command.disconnect();
    },
  };
}

export function descriptorOf(vector: Float32Array, descriptorVersion: number): Buffer {
  return encodeDescriptor(vector, descriptorVersion);
}

export function errorOf(reply: MatchReply): LimError | undefined {
  return reply.error ? LimError.fromBody(reply.error) : undefined;
}
