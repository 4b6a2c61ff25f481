import { randomUUID } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  defaults,
  type ErrorBody,
  errorBodySchema,
  type RetentionResponse,
  type Task,
  taskSchema,
} from "@lim/contracts";
import type { TaskStore } from "@lim/coordination";
import { createLogger, metricsIn, Registry } from "@lim/service-kit";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";
import type { FastifyInstance } from "fastify";
import { expect } from "vitest";
import { type AppDeps, buildApp } from "../src/app.ts";
import type { Previews } from "../src/previews.ts";
import { type Harness, startHarness } from "./harness.ts";
import { testVector, uuidOf } from "./test-indexer.ts";

export type Method = "GET" | "POST" | "DELETE" | "HEAD";

export const emptyRetention: RetentionResponse = {
  tasks: { count: 0, remove: 0, keep: 1, retention_s: 1 },
  indexes: { keep_versions: 2, remove: [] },
  missing_lists: [],
  dead_letters: { count: 0, remove: 0, retention_s: 1 },
  feeds: { retention_s: 60, compact: [] },
  garbage: { staging: 0, trash: 0, marks: 0 },
};
export const emptyPreviews: Previews = {
  plan: async () => ({ due: false, last_plan_time: null, next_plan_time: null, decisions: [] }),
  retention: async () => emptyRetention,
};

export interface Api {
  harness: Harness;
  /** A manager's application that is not the master; ended by `clear`. */
  app(deps?: Partial<AppDeps>): Promise<FastifyInstance>;
  /** Publishes a real index with this meta and one vector. */
  publish(options: PublishOptions): Promise<string>;
  /** A task that ended. */
  ended(listId: string, error?: ErrorBody): Promise<Task>;
  /** Ends the applications, empties Redis, the lists and the storage. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

export interface PublishOptions {
  label: string;
  revision: number;
  historyId?: string;
  descriptorVersion?: number;
  indexId?: string;
}

/** Real Redis, Postgres and storage under applications without a process of their own. */
export async function startApi(): Promise<Api> {
  const harness = await startHarness();
  const { store, db, storage } = harness;
  const apps: FastifyInstance[] = [];
  const epoch = 1;
  return {
    harness,
    async app(deps = {}) {
      const metrics = new Registry();
      const app = await buildApp({
        store,
        db,
        storage,
        previews: emptyPreviews,
        apiToken: undefined,
        progressStreams: metricsIn(metrics).gauge("lim_manager_progress_streams"),
        stopping: new AbortController().signal,
        descriptorVersion: 1,
        logger: createLogger({ service: "test", level: "silent" }),
        metrics,
        health: [],
        isReady: () => true,
        isMaster: () => false,
        ...deps,
      });
      apps.push(app);
      return app;
    },
    publish: (options) => publish(harness, options),
    async ended(listId, error) {
      await harness.raw.set("{lim_manager_master}:epoch", epoch);
      const taskId = randomUUID();
      await store.create({ taskId, listId, mode: "rebuild", trigger: "request" });
      await store.dispatch({ taskId, indexer: "http://indexer:5180", epoch });
      const endTime = new Date().toISOString();
      const { ok } = await store.finish({ taskId, attempt: 1, epoch, error: error ?? null, endTime });
      expect(ok).toBe(true);
      return taskSchema.parse(await store.get(taskId));
    },
    async clear() {
      await Promise.all(apps.splice(0).map((app) => app.close()));
      await harness.clear();
      for (const name of await readdir(storage.root))
        if (!name.startsWith(".")) await rm(join(storage.root, name), { recursive: true });
    },
    close: () => harness.close(),
  };
}

async function publish({ storage }: Harness, options: PublishOptions): Promise<string> {
  const { label, revision, historyId = uuidOf(1), descriptorVersion = 1, indexId = randomUUID() } = options;
  const params = { m: 16, efConstruction: 50 };
  const engine = await loadEngine(defaults.engine);
  const keyed = createKeyedIndex(await engine.create({ dim: 8, capacity: 1, params }));
  const staging = await storage.stage({ label, indexId, attempt: 1 });
  try {
    await keyed.addNew(Buffer.from(uuidOf(7).replaceAll("-", ""), "hex"), testVector(1));
    await staging.publish(
      keyed,
      {
        label,
        historyId,
        descriptorVersion,
        revision,
        engine: defaults.engine,
        params,
        mode: "rebuild",
        removedSinceRebuild: 0,
        skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
      },
      { phases: { build: 1 } },
    );
  } finally {
    await keyed.close();
    await staging.discard();
  }
  return indexId;
}

export interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: bodies are compared, or parsed by the contract's schemas
  body: any;
  headers: Record<string, unknown>;
}

/** Asks an application without a connection. */
export async function ask(
  app: FastifyInstance,
  method: Method,
  url: string,
  payload?: object,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await app.inject({ method, url, headers, ...(payload ? { payload } : {}) });
  const body = response.body === "" ? undefined : response.json();
  return { status: response.statusCode, body, headers: response.headers };
}

/** Status, code and reason of an error in its one form. */
export async function refusal(...call: Parameters<typeof ask>): Promise<[number, number, string]> {
  const { status, body } = await ask(...call);
  const error = errorBodySchema.parse(body);
  return [status, error.error_code, error.detail];
}

/** A store whose named methods are others; for what only a broken connection or a race brings about. */
export function storeWith(store: TaskStore, methods: Partial<TaskStore>): TaskStore {
  return new Proxy(store, {
    get: (target, name) => Reflect.get(methods, name) ?? Reflect.get(target, name).bind(target),
  });
}
