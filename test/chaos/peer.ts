import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type BuildRequest,
  buildRequestSchema,
  type ErrorName,
  type IndexerState,
  LimError,
  maxReportedOutcomes,
  stopRequestSchema,
} from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage } from "@lim/index-storage";
import { publishIndex } from "./publish.ts";
import type { Chances } from "./random.ts";

/** What peers tell of their builds. Times are milliseconds of performance.now(). */
export interface PeerWitness {
  took(build: BuildRequest, origin: string): void;
  /** `again`: an index of the task was in the storage before this one. */
  published(build: BuildRequest, revision: number, atMs: number, again: boolean): void;
  failed(build: BuildRequest, error: LimError): void;
  /** The process "restarted": nobody will hear of the build from this peer. */
  forgot(build: BuildRequest): void;
}

/** An indexer at its HTTP contract, in this process, that builds real small indexes and misbehaves by chance. */
export interface Peer {
  readonly origin: string;
  /** From now on it neither fails, crashes, refuses nor dawdles. */
  calm(): void;
  close(): Promise<void>;
}

const chance = {
  /** The build ends in an error that is no fault of the surroundings: the task ends. */
  failure: 0.05,
  /** An error of the surroundings: the task gets another attempt. */
  transient: 0.05,
  crash: 0.04,
  refusal: 0.03,
  slowAnswer: 0.05,
} as const;
/** Below what makes a manager give an indexer up. */
const slowAnswerMs = { least: 50, most: 800 } as const;
const buildMs = { least: 20, most: 700 } as const;

interface Running {
  request: BuildRequest;
  stop: AbortController;
}

export async function startPeer(deps: {
  storage: IndexStorage;
  db: FacesDb;
  chances: Chances;
  witness: PeerWitness;
}): Promise<Peer> {
  const { chances, witness } = deps;
  let state = idle();
  let running: Running | undefined;
  let highestEpoch = 0;
  let calm = false;
  const happens = (probability: number) => !calm && chances.hits(probability);
  const builds = new Set<Promise<void>>();

  const crash = ({ request, stop }: Running) => {
    stop.abort();
    running = undefined;
    highestEpoch = 0;
    state = idle();
    witness.forgot(request);
  };
  const settle = ({ request }: Running, error: LimError | null) => {
    const { task_id, list_id, attempt } = request;
    const outcome = {
      task_id,
      list_id,
      attempt,
      status: error ? ("error" as const) : ("success" as const),
      error: error?.toBody() ?? null,
      end_time: new Date().toISOString(),
      skipped: null,
    };
    const outcomes = [outcome, ...state.outcomes].slice(0, maxReportedOutcomes);
    state = { ...idle(), boot_id: state.boot_id, outcomes };
    running = undefined;
  };
  const build = async (own: Running) => {
    const fate = fateOf(happens);
    await sleep(chances.between(buildMs.least, buildMs.most), undefined, { signal: own.stop.signal }).catch(
      () => undefined,
    );
    if (running !== own) return;
    if (fate === "crash") return crash(own);
    const error = own.stop.signal.aborted
      ? new LimError("build_cancelled", "stopped")
      : fate === "publish"
        ? await publish(deps, own.request, own.stop.signal)
        : new LimError(fate, "by chance");
    if (error) witness.failed(own.request, error);
    if (running === own) settle(own, error ?? null);
  };
  const fence = (epoch: number) => {
    if (epoch < highestEpoch) throw new LimError("fenced", `epoch ${epoch} is older than ${highestEpoch}`);
    highestEpoch = epoch;
  };
  const take = (body: unknown, origin: string) => {
    const request = buildRequestSchema.parse(body);
    fence(request.epoch);
    if (running) throw new LimError("indexer_busy", `building ${running.request.task_id}`);
    if (happens(chance.refusal)) throw new LimError("overloaded", "by chance");
    const own: Running = { request, stop: new AbortController() };
    running = own;
    const { task_id, list_id, attempt, mode } = request;
    state = {
      ...state,
      state: "building",
      task_id,
      list_id,
      attempt,
      mode,
      start_time: new Date().toISOString(),
    };
    witness.took(request, origin);
    const ended = build(own).finally(() => builds.delete(ended));
    builds.add(ended);
  };
  const stop = (body: unknown) => {
    const { task_id, attempt, epoch } = stopRequestSchema.parse(body);
    fence(epoch);
    if (running?.request.task_id === task_id && running.request.attempt === attempt) running.stop.abort();
  };

  const server = createServer((request, response) => {
    void (async () => {
      try {
        if (happens(chance.slowAnswer)) await sleep(chances.between(slowAnswerMs.least, slowAnswerMs.most));
        if (request.url === "/index_list") take(await bodyOf(request), originOf(server));
        else if (request.url === "/stop") stop(await bodyOf(request));
        answer(response, 200, state);
      } catch (thrown) {
        const error = LimError.from(thrown);
        answer(response, error.httpStatus, error.toBody());
      }
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: originOf(server),
    calm() {
      calm = true;
    },
    async close() {
      running?.stop.abort();
      await Promise.allSettled(builds);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };

  /** Publishes a real index of the list as it is now; resolves with the error that hindered it. */
  async function publish(
    { storage, db }: { storage: IndexStorage; db: FacesDb },
    request: BuildRequest,
    signal: AbortSignal,
  ): Promise<LimError | undefined> {
    const { list_id: label, task_id: indexId } = request;
    const again = (await storage.find({ indexId, label }).catch(() => undefined)) !== undefined;
    try {
      const { meta } = await publishIndex(
        { storage, db },
        {
          label,
          indexId,
          attempt: request.attempt,
          engine: request.engine,
          params: { m: request.params.m, efConstruction: request.params.ef_construction },
          descriptorVersion: request.descriptor_version,
          dim: request.dim,
          mode: request.mode,
          signal,
        },
      );
      witness.published(request, meta.revision, performance.now(), again);
      return undefined;
    } catch (thrown) {
      const error = LimError.from(thrown);
      // Cut off in the middle it may have been published all the same.
      const found = await storage.find({ indexId, label }).catch(() => undefined);
      if (found && !again) witness.published(request, found.meta.revision, performance.now(), false);
      return error.errorName === "aborted" ? new LimError("build_cancelled", error.detail) : error;
    }
  }
}

function fateOf(happens: (probability: number) => boolean): "publish" | "crash" | ErrorName {
  if (happens(chance.crash)) return "crash";
  if (happens(chance.failure)) return "build_crashed";
  if (happens(chance.transient)) return "postgres_unavailable";
  return "publish";
}

function originOf(server: { address(): AddressInfo | string | null }): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function idle(): IndexerState {
  return {
    boot_id: randomUUID(),
    state: "idle",
    task_id: null,
    list_id: null,
    attempt: null,
    mode: null,
    start_time: null,
    progress: null,
    outcomes: [],
  };
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const chunk of request) text += chunk;
  return JSON.parse(text);
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}
