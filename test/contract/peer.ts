import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  type BuildRequest,
  buildPhases,
  buildRequestSchema,
  type IndexerState,
  LimError,
  maxReportedOutcomes,
  stopRequestSchema,
} from "@lim/contracts";

/** A peer that keeps the indexer's HTTP contract; what becomes of a build is the run's business. */
export interface Peer {
  readonly origin: string;
  /** Id of the task that it builds. */
  building(): string | undefined;
  /** While held, builds are taken and go on, but none ends but those that were about to (see `isEnding`). */
  hold(held: boolean): void;
  isEnding(): boolean;
  close(): Promise<void>;
}

const stepMs = 15;

/** `build` publishes and resolves, or rejects with what the task ends with. */
export async function startPeer(build: (request: BuildRequest) => Promise<void>): Promise<Peer> {
  const bootId = randomUUID();
  let current: { request: BuildRequest; startTime: string; step: number; working: boolean } | undefined;
  let outcomes: IndexerState["outcomes"] = [];
  let held = false;
  const finish = (request: BuildRequest, error: LimError | null) => {
    if (current?.request !== request) return;
    const { task_id, list_id, attempt } = request;
    const end_time = new Date().toISOString();
    const status = error ? ("error" as const) : ("success" as const);
    const end = { error: error?.toBody() ?? null, end_time, skipped: null };
    const outcome = { task_id, list_id, attempt, status, ...end };
    outcomes = [outcome, ...outcomes].slice(0, maxReportedOutcomes);
    current = undefined;
  };
  const timer = setInterval(() => {
    if (!current) return;
    current.step++;
    if (held || current.working || current.step < buildPhases.length) return;
    current.working = true;
    const { request } = current;
    build(request).then(
      () => finish(request, null),
      (thrown) => finish(request, LimError.from(thrown, "build_crashed")),
    );
  }, stepMs);
  const state = (): IndexerState => ({
    boot_id: bootId,
    state: current ? "building" : "idle",
    task_id: current?.request.task_id ?? null,
    list_id: current?.request.list_id ?? null,
    attempt: current?.request.attempt ?? null,
    mode: current?.request.mode ?? null,
    start_time: current?.startTime ?? null,
    progress: current ? progressAt(current.step) : null,
    outcomes,
  });
  const take = (body: unknown) => {
    const request = buildRequestSchema.parse(body);
    if (current) throw new LimError("indexer_busy", "building");
    current = { request, startTime: new Date().toISOString(), step: 0, working: false };
  };
  const stop = (body: unknown) => {
    const { task_id, attempt } = stopRequestSchema.parse(body);
    const request = current?.request;
    if (request?.task_id === task_id && request.attempt === attempt)
      finish(request, new LimError("build_cancelled", "stopped"));
  };
  const server = createServer((request, response) => {
    void (async () => {
      try {
        if (request.url === "/index_list") take(await bodyOf(request));
        else if (request.url === "/stop") stop(await bodyOf(request));
        answer(response, 200, state());
      } catch (thrown) {
        const error = LimError.from(thrown);
        answer(response, error.httpStatus, error.toBody());
      }
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    building: () => current?.request.task_id,
    isEnding: () => current?.working === true,
    hold(value) {
      held = value;
    },
    async close() {
      clearInterval(timer);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const total = 1_000;

function progressAt(step: number): NonNullable<IndexerState["progress"]> {
  const phase = buildPhases[Math.min(step, buildPhases.length - 1)] ?? "publish";
  const done = Math.min(total, step * 10);
  return {
    phase,
    done,
    total,
    rate_per_s: step % 2 === 0 ? null : 950.5,
    eta_s: step % 2 === 0 ? null : 0.5,
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
