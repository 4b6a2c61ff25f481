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

/** A peer that keeps the indexer's HTTP contract and does with a build what the test says. */
export interface TestIndexer {
  readonly origin: string;
  readonly builds: BuildRequest[];
  readonly stops: { task_id: string; attempt: number }[];
  /** The build it is at. */
  current(): BuildRequest | undefined;
  progress(progress: Progress): void;
  /** Publishes a real index of the list and reports success. */
  succeed(): Promise<void>;
  /** Reports an outcome; success without publishing where `error` is null. */
  end(error: LimError | null): void;
  /** Forgets everything, as a restarted process does. */
  restart(): void;
  /** Answers dispatches with this instead of taking them. */
  refuseWith(error: LimError | undefined): void;
  /** Called with each build it takes. */
  onBuild(listener: () => void): void;
  close(): Promise<void>;
}

export async function startTestIndexer(deps: { storage: IndexStorage; db: FacesDb }): Promise<TestIndexer> {
  let state = idleState();
  let current: BuildRequest | undefined;
  let refusal: LimError | undefined;
  let onBuild = () => {};
  const builds: BuildRequest[] = [];
  const stops: TestIndexer["stops"] = [];
  const settle = (error: LimError | null) => {
    if (!current) throw new Error("no build is running");
    const { task_id, list_id, attempt } = current;
    const outcome = {
      task_id,
      list_id,
      attempt,
      status: error ? ("error" as const) : ("success" as const),
      error: error?.toBody() ?? null,
      end_time: new Date().toISOString(),
    };
    state = { ...idleState(), boot_id: state.boot_id, outcomes: [outcome, ...state.outcomes] };
    current = undefined;
  };
  const take = (body: unknown) => {
    const request = buildRequestSchema.parse(body);
    if (refusal) throw refusal;
    if (current) throw new LimError("indexer_busy", "building");
    current = request;
    builds.push(request);
    const { task_id, list_id, attempt, mode } = request;
    const start_time = new Date().toISOString();
    state = { ...state, state: "building", task_id, list_id, attempt, mode, start_time };
    onBuild();
  };
  const stop = (body: unknown) => {
    const { task_id, attempt } = stopRequestSchema.parse(body);
    stops.push({ task_id, attempt });
    if (current?.task_id === task_id && current.attempt === attempt)
      settle(new LimError("build_cancelled", "stopped"));
  };
  const server = createServer((request, response) => {
    void (async () => {
      try {
        if (request.url === "/index_list") take(await bodyOf(request));
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
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    builds,
    stops,
    current: () => current,
    progress(progress) {
      state = { ...state, progress };
    },
    async succeed() {
      if (!current) throw new Error("no build is running");
      await publish(deps, current);
      settle(null);
    },
    end: settle,
    restart() {
      current = undefined;
      state = idleState();
    },
    refuseWith(error) {
      refusal = error;
    },
    onBuild(listener) {
      onBuild = listener;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
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

function answer(response: ServerResponse, status: number, body: object): void {
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
