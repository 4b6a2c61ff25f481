import {
  type BuildRequest,
  errorBodySchema,
  type IndexerState,
  indexerStateSchema,
  LimError,
  type stopRequestSchema,
} from "@lim/contracts";
import type { Log } from "@lim/coordination";
import { requestIdHeader, requestIdOf } from "@lim/service-kit";
import type { z } from "zod";
import { managerLimits } from "./limits.ts";

/**
 * What came of a command: refused in an indexer's own words, or never delivered (`certain`: it surely was not carried
 * out); or without an answer, or with one that tells nothing, like a proxy's (it may have been).
 */
export type CommandResult = { sent: true } | { sent: false; certain: boolean; error: LimError };

/** The indexers' HTTP contract, from the manager's side. */
export interface IndexerClient {
  /** Undefined where there was no valid answer in time. */
  state(origin: string, signal: AbortSignal): Promise<IndexerState | undefined>;
  /** `requestId`: under which the indexer's log has it; by default a new one. */
  build(
    origin: string,
    request: BuildRequest,
    signal: AbortSignal,
    requestId?: string,
  ): Promise<CommandResult>;
  stop(
    origin: string,
    request: z.infer<typeof stopRequestSchema>,
    signal: AbortSignal,
    requestId?: string,
  ): Promise<CommandResult>;
}

/** `token`: what protected indexers ask for; others pay no heed to it. */
export function createIndexerClient(log: Log, token?: string): IndexerClient {
  const authorization: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}` };
  return {
    async state(origin, signal) {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(managerLimits.stateTimeoutMs)]);
      try {
        const response = await fetch(`${origin}/state`, {
          headers: authorization,
          redirect: "error",
          signal: limit,
        });
        const body = await readJson(response);
        if (response.ok) return indexerStateSchema.parse(body);
        // Who looks up says when an indexer begins and ceases to answer: here it would be a line per lookup.
        log.debug({ indexer: origin, status: response.status }, "indexer refused to tell its state");
      } catch (thrown) {
        if (signal.aborted) throw thrown;
        log.debug({ indexer: origin, err: thrown }, "indexer did not tell its state");
      }
      return undefined;
    },
    build: (origin, request, signal, requestId = requestIdOf(undefined)) =>
      command(`${origin}/index_list`, request, { authorization, signal, requestId }),
    stop: (origin, request, signal, requestId = requestIdOf(undefined)) =>
      command(`${origin}/stop`, request, { authorization, signal, requestId }),
  };
}

async function command(
  url: string,
  body: object,
  options: { authorization: Readonly<Record<string, string>>; signal: AbortSignal; requestId: string },
): Promise<CommandResult> {
  const { authorization, signal, requestId } = options;
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: {
        ...authorization,
        "content-type": "application/json",
        [requestIdHeader]: requestId,
      },
      body: JSON.stringify(body),
      redirect: "error",
      signal: AbortSignal.any([signal, AbortSignal.timeout(managerLimits.commandTimeoutMs)]),
    });
    const answer = await readJson(response).catch(() => undefined);
    if (response.ok) return { sent: true };
    const error = errorBodySchema.safeParse(answer);
    return {
      sent: false,
      certain: error.success && certainStatus(response.status),
      error: error.success
        ? LimError.fromBody(error.data)
        : new LimError("internal", `${url} answered HTTP ${response.status}`),
    };
  } catch (thrown) {
    return {
      sent: false,
      certain: causeCode(thrown) === "ECONNREFUSED",
      error: new LimError("indexer_lost", `${url}: ${reasonOf(thrown)}`, { cause: thrown }),
    };
  }
}

function certainStatus(status: number): boolean {
  return (status >= 400 && status < 500) || status === 503;
}

function causeCode(thrown: unknown): string | undefined {
  const cause = thrown instanceof Error ? (thrown.cause as { code?: string } | undefined) : undefined;
  return cause?.code;
}

function reasonOf(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return [message, causeCode(thrown)].filter(Boolean).join(" ");
}

/** The body as JSON; throws past the size limit without reading on. */
async function readJson(response: Response): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > managerLimits.maxIndexerAnswerBytes)
      throw new LimError("payload_too_large", `${response.url} answers with too many bytes`);
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}
