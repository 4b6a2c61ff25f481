import { randomUUID } from "node:crypto";
import { type ErrorName, encodeDescriptor, LimError } from "@lim/contracts";
import type { MatchClient } from "@lim/coordination";
import type { Call } from "./call.ts";
import type { MatchAnswer } from "./types.ts";

/** Failures that may be over a moment later: the request is sent again by the same rid. */
const passing: readonly ErrorName[] = ["redis_unavailable", "not_served", "request_expired"];
/** Sends of one request after failures. */
const maxSends = 10;
const firstPauseMs = 50;
const maxPauseMs = 1_000;
/** With less time left nothing is sent any more. */
const leastTimeMs = 20;
/** When requests without an answer are looked after: shares of the deadline, and at the latest. */
const looks = [
  { share: 0.3, latestMs: 1_500 },
  { share: 0.6, latestMs: 3_000 },
];

interface Sending {
  rid: string;
  sends: number;
  sentAtMs: number;
}

/** Matches by matchers, over the streams. */
export class IndexPath {
  readonly #client: MatchClient;
  readonly #descriptorVersion: number;
  readonly #isServed: (label: string) => boolean;

  constructor(options: {
    client: MatchClient;
    descriptorVersion: number;
    isServed: (label: string) => boolean;
  }) {
    this.#client = options.client;
    this.#descriptorVersion = options.descriptorVersion;
    this.#isServed = options.isServed;
  }

  /**
   * Asks for all vectors at once. A request whose matcher died, or that got lost, is sent again. `isLastResort`: so is
   * one whose failure may pass, as long as there is time.
   */
  start(call: Call, vectors: readonly Float32Array[], isLastResort: boolean): Promise<MatchAnswer>[] {
    const open = new Set<Sending>();
    let timer: NodeJS.Timeout | undefined;
    const { timeoutMs, leftMs } = call.deadline;
    const beganAtMs = performance.now() - (timeoutMs - leftMs);
    const lookAfter = ([look, ...later]: typeof looks) => {
      if (!look) return;
      const atMs = beganAtMs + Math.min(timeoutMs * look.share, look.latestMs);
      timer = setTimeout(
        () => {
          for (const sending of open) void this.#sendAgain(sending);
          lookAfter(later);
        },
        Math.max(0, atMs - performance.now()),
      );
    };
    lookAfter(looks);
    return vectors.map(async (vector) => {
      const sending = { rid: randomUUID(), sends: 0, sentAtMs: 0 };
      open.add(sending);
      try {
        return await this.#ask(call, vector, sending, isLastResort);
      } finally {
        open.delete(sending);
        if (open.size === 0) clearTimeout(timer);
      }
    });
  }

  async #ask(
    call: Call,
    vector: Float32Array,
    sending: Sending,
    isLastResort: boolean,
  ): Promise<MatchAnswer> {
    const descriptor = encodeDescriptor(vector, this.#descriptorVersion);
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, maxPauseMs)) {
      try {
        return await this.#askOnce(call, descriptor, sending);
      } catch (thrown) {
        const error = LimError.from(thrown);
        const mayPass = passing.includes(error.errorName) && sending.sends < maxSends;
        if (!isLastResort || !mayPass || call.deadline.leftMs < pauseMs + leastTimeMs) throw error;
        await call.deadline.pause(pauseMs);
        // Another matcher's label key is still there, or nobody will answer.
        if (error.errorName === "not_served" && !this.#isServed(call.query.label)) throw error;
      }
    }
  }

  async #askOnce(call: Call, descriptor: Buffer, sending: Sending): Promise<MatchAnswer> {
    const { query, deadline, lunaRequestId } = call;
    sending.sends++;
    sending.sentAtMs = performance.now();
    const reply = await this.#client.request(
      {
        label: query.label,
        rid: sending.rid,
        descriptor,
        limit: query.limit,
        // Left out where it is what a matcher takes for granted: every field is read and checked for each request.
        ...(query.threshold === 0 ? {} : { threshold: query.threshold }),
        timeoutMs: Math.max(1, Math.floor(deadline.leftMs)),
        ...(query.minRevision === undefined ? {} : { minRevision: query.minRevision }),
        ...(lunaRequestId === undefined ? {} : { lunaRequestId }),
      },
      // Its own time limit is the deadline.
      deadline.cancellation,
    );
    if (reply.error) throw LimError.fromBody(reply.error);
    if (reply.index_id === null || reply.revision === null)
      throw new LimError("internal", "a matcher's reply names no index");
    const nowMs = performance.now();
    const queueMs = reply.timings?.queue_ms ?? 0;
    const searchMs = reply.timings?.search_ms ?? 0;
    return {
      matches: reply.result,
      path: "index",
      indexId: reply.index_id,
      revision: reply.revision,
      sends: sending.sends,
      timings: {
        totalMs: nowMs - call.startedAtMs,
        prepareMs: sending.sentAtMs - call.startedAtMs,
        queueMs,
        followMs: null,
        searchMs,
        // Redis' clock and this one differ in pace, and the answer may be of an earlier sending.
        transportMs: Math.max(0, nowMs - sending.sentAtMs - queueMs - searchMs),
      },
    };
  }

  async #sendAgain(sending: Sending): Promise<void> {
    try {
      if (!(await this.#client.resend(sending.rid))) return;
      sending.sends++;
      sending.sentAtMs = performance.now();
    } catch {
      // Redis is away: the request itself says so, or its deadline.
    }
  }
}
