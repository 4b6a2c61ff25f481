import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  type BuildRequest,
  buildRequestSchema,
  type IndexerState,
  LimError,
  type Progress,
  stopRequestSchema,
  writeUuid,
} from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage } from "@lim/index-storage";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";

/** What it does with a request in place of the contract's answer. */
export type Misbehaviour = (
  | { kind: "hang" }
  | { kind: "slow"; delayMs: number }
  | { kind: "answer"; status: number; body: string; headers?: Record<string, string> }
  | { kind: "close" }
  /** One byte of the right answer at a time. */
  | { kind: "trickle"; intervalMs: number }
) & {
  /** Carries the command out first, so that only the word about it is lost or late. */
  carriesOut?: boolean;
};

export type IndexerPath = "/state" | "/index_list" | "/stop";

/** A peer that keeps the indexer's HTTP contract and does with a build what the test says. */
export interface TestIndexer {
  readonly origin: string;
  readonly builds: BuildRequest[];
  readonly stops: { task_id: string; attempt: number }[];
  /** Requests that came, refused and misbehaved ones included. */
  readonly asked: Record<IndexerPath, number>;
  /** Most questions for its state that were open at the same time. */
  readonly mostOpen: () => number;
  /** The build it is at. */
  current(): BuildRequest | undefined;
  progress(progress: Progress): void;
  /** Publishes a real index of the list and reports success. */
  succeed(): Promise<void>;
  /** Publishes a real index of the list and goes on as if it had not. */
  publishOnly(): Promise<void>;
  /** Reports an outcome; success without publishing where `error` is null. */
  end(error: LimError | null): void;
  /** Forgets everything, as a restarted process does. */
  restart(): void;
  /** Takes no more builds, as one that is shutting down. */
  drain(): void;
  /** Reports this besides or in place of what is so. */
  claim(change: Partial<IndexerState>): void;
  /** Answers dispatches with this instead of taking them. */
  refuseWith(error: LimError | undefined): void;
  /** From now on, on that path; requests that hang stay so until it is lifted. */
  misbehave(path: IndexerPath, how: Misbehaviour | undefined): void;
  /** Called with each build it takes. */
  onBuild(listener: () => void): void;
  close(): Promise<void>;
}

export async function startTestIndexer(deps: { storage: IndexStorage; db: FacesDb }): Promise<TestIndexer> {
  const peer = createPeer();
  const misbehaviours = new Map<string, { how: Misbehaviour; lifted: AbortController }>();
  const asked: TestIndexer["asked"] = { "/state": 0, "/index_list": 0, "/stop": 0 };
  let open = 0;
  let mostOpen = 0;
  const server = createServer((request, response) => {
    const path = request.url as IndexerPath;
    asked[path]++;
    if (path === "/state") {
      mostOpen = Math.max(mostOpen, ++open);
      response.once("close", () => open--);
    }
    void serve(peer, request, response, misbehaviours.get(path)).catch(() => response.destroy());
  });
  const misbehave = (path: IndexerPath, how: Misbehaviour | undefined) => {
    misbehaviours.get(path)?.lifted.abort();
    misbehaviours.delete(path);
    if (how) misbehaviours.set(path, { how, lifted: new AbortController() });
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const running = () => {
    const build = peer.current();
    if (!build) throw new Error("no build is running");
    return build;
  };
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    builds: peer.builds,
    stops: peer.stops,
    asked,
    mostOpen: () => mostOpen,
    current: peer.current,
    progress: (progress) => peer.claim({ progress }),
    async succeed() {
      await publish(deps, running());
      peer.end(null);
    },
    publishOnly: () => publish(deps, running()),
    end: peer.end,
    restart: peer.restart,
    drain: peer.drain,
    claim: peer.claim,
    refuseWith: peer.refuseWith,
    misbehave,
    onBuild: peer.onBuild,
    async close() {
      for (const path of Object.keys(asked)) misbehave(path as IndexerPath, undefined);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The indexer behind the HTTP: one build, its outcomes, and the highest epoch seen. */
function createPeer() {
  let state = idleState();
  let current: BuildRequest | undefined;
  let refusal: LimError | undefined;
  let highestEpoch = 0;
  let onBuild = () => {};
  const builds: BuildRequest[] = [];
  const stops: TestIndexer["stops"] = [];
  const fence = (epoch: number) => {
    if (epoch < highestEpoch) throw new LimError("fenced", `epoch ${epoch} is older than ${highestEpoch}`);
    highestEpoch = epoch;
  };
  const end = (error: LimError | null) => {
    if (!current) throw new Error("no build is running");
    const { task_id, attempt } = current;
    const outcome = {
      task_id,
      list_id: state.list_id ?? current.list_id,
      attempt,
      status: error ? ("error" as const) : ("success" as const),
      error: error?.toBody() ?? null,
      end_time: new Date().toISOString(),
      skipped: error ? { wrong_length: 0, not_finite: 0, zero_norm: 7 } : null,
    };
    const { boot_id, outcomes } = state;
    const next = state.state === "draining" ? ("draining" as const) : ("idle" as const);
    state = { ...idleState(), boot_id, state: next, outcomes: [outcome, ...outcomes] };
    current = undefined;
  };
  return {
    builds,
    stops,
    current: () => current,
    state: () => state,
    end,
    take(body: unknown) {
      const request = buildRequestSchema.parse(body);
      if (refusal) throw refusal;
      fence(request.epoch);
      const { task_id, list_id, attempt, mode } = request;
      if (current?.task_id === task_id && current.attempt === attempt) return;
      if (current) throw new LimError("indexer_busy", "building");
      if (state.state === "draining") throw new LimError("indexer_busy", "shutting down");
      current = request;
      builds.push(request);
      const start_time = new Date().toISOString();
      state = { ...state, state: "building", task_id, list_id, attempt, mode, start_time };
      onBuild();
    },
    stop(body: unknown) {
      const { task_id, attempt, epoch } = stopRequestSchema.parse(body);
      fence(epoch);
      stops.push({ task_id, attempt });
      if (current?.task_id === task_id && current.attempt === attempt)
        end(new LimError("build_cancelled", "stopped"));
    },
    claim(change: Partial<IndexerState>) {
      state = { ...state, ...change };
    },
    restart() {
      current = undefined;
      state = idleState();
    },
    drain() {
      state = { ...state, state: "draining" };
    },
    refuseWith(error: LimError | undefined) {
      refusal = error;
    },
    onBuild(listener: () => void) {
      onBuild = listener;
    },
  };
}

async function serve(
  peer: ReturnType<typeof createPeer>,
  request: IncomingMessage,
  response: ServerResponse,
  wrong: { how: Misbehaviour; lifted: AbortController } | undefined,
): Promise<void> {
  const body = request.method === "POST" ? await bodyOf(request) : undefined;
  const obey = (): { status: number; body: object } => {
    try {
      if (request.url === "/index_list") peer.take(body);
      else if (request.url === "/stop") peer.stop(body);
      return { status: 200, body: peer.state() };
    } catch (thrown) {
      const error = LimError.from(thrown);
      return { status: error.httpStatus, body: error.toBody() };
    }
  };
  if (!wrong) return answer(response, obey());
  const { how, lifted } = wrong;
  const early = how.carriesOut ? obey() : undefined;
  switch (how.kind) {
    case "hang":
      await until(lifted.signal);
      return answer(response, early ?? obey());
    case "slow":
      await until(AbortSignal.any([lifted.signal, AbortSignal.timeout(how.delayMs)]));
      return answer(response, early ?? obey());
    case "answer":
      response.writeHead(how.status, { connection: "close", ...how.headers }).end(how.body);
      return;
    case "close":
      response.destroy();
      return;
    case "trickle":
      return trickle(response, JSON.stringify((early ?? obey()).body), how.intervalMs, lifted.signal);
    default:
      how satisfies never;
  }
}

async function trickle(
  response: ServerResponse,
  text: string,
  intervalMs: number,
  lifted: AbortSignal,
): Promise<void> {
  response.writeHead(200, { "content-type": "application/json", connection: "close" });
  for (const char of text) {
    if (lifted.aborted || response.destroyed) break;
    response.write(char);
    await until(AbortSignal.any([lifted, AbortSignal.timeout(intervalMs)]));
  }
  response.destroy();
}

function until(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function idleState(): IndexerState {
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

function answer(response: ServerResponse, { status, body }: { status: number; body: object }): void {
  response.writeHead(status, { "content-type": "application/json", connection: "close" });
  response.end(JSON.stringify(body));
}

async function publish(
  { storage, db }: { storage: IndexStorage; db: FacesDb },
  request: BuildRequest,
): Promise<void> {
  const { list_id: listId, descriptor_version: descriptorVersion, dim } = request;
  const params = { m: request.params.m, efConstruction: request.params.ef_construction };
  const snapshot = await db.openSnapshot({ listId, descriptorVersion, dim });
  const engine = await loadEngine(request.engine);
  const keyed = createKeyedIndex(await engine.create({ dim, capacity: snapshot.faceCount, params }));
  const staging = await storage.stage({ label: listId, indexId: request.task_id, attempt: request.attempt });
  try {
    for await (const batch of snapshot.batches) await keyed.addNew(batch.faceIds, batch.vectors);
    await staging.publish(
      keyed,
      {
        label: listId,
        historyId: snapshot.historyId,
        descriptorVersion,
        revision: snapshot.revision,
        engine: request.engine,
        params,
        mode: request.mode,
        removedSinceRebuild: 0,
        skipped: snapshot.skipped,
      },
      { phases: {} },
    );
  } finally {
    await keyed.close();
    await snapshot.close();
    await staging.discard();
  }
}

/** A unit vector of 8 dimensions, the same for the same number. */
export function testVector(seed: number): Float32Array {
  const vector = Float32Array.from({ length: 8 }, (_, i) => Math.sin(seed * 7.3 + i * 1.7 + 0.3));
  const norm = Math.hypot(...vector);
  return vector.map((value) => value / norm);
}

export function uuidOf(number: number): string {
  const bytes = new Uint8Array(16);
  writeUuid("00000000-0000-4000-8000-000000000000", bytes);
  new DataView(bytes.buffer).setUint32(12, number);
  const hex = Buffer.from(bytes).toString("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
