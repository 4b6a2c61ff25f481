import { type EngineName, LimError, type Match, type Task, writeUuid } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { SearchPlugin } from "@lim/search-plugin";
import type { Servers, Service, ServiceKind } from "@lim/testkit";
import { eventually } from "@lim/testkit";
import { createExactIndex, type ExactIndex } from "@lim/vector-index";
import { ManagerApi } from "../api/manager-api.ts";
import type { ReportBuilder } from "./report.ts";
import type { DemoList, FaceSource, Probe } from "./source.ts";

/** What the demo's steps share. */
export interface DemoContext {
  source: FaceSource;
  engine: EngineName;
  servers: Servers;
  storageRoot: string;
  services: Service[];
  /** Bearer token of the managers, which have it from the environment. */
  apiToken: string | undefined;
  /** Services that the demo killed on purpose. */
  killed: Set<Service>;
  db: FacesDb;
  report: ReportBuilder;
  /** List name → list id, which is its label. */
  labels: Map<string, string>;
  /** Without a database: only the index path, so that no failure hides behind the exact search. */
  indexOnly: SearchPlugin;
  /** As a platform embeds it. */
  plugin: SearchPlugin;
  signal: AbortSignal;
}

export function labelOf(context: DemoContext, list: DemoList): string {
  const label = context.labels.get(list.name);
  if (label === undefined) throw new LimError("internal", `list ${list.name} was not imported`);
  return label;
}

/** Those that still run. */
export function alive(context: DemoContext, kind: ServiceKind): Service[] {
  return context.services.filter((service) => service.kind === kind && !context.killed.has(service));
}

export async function kill(context: DemoContext, service: Service): Promise<void> {
  context.killed.add(service);
  service.process.kill("SIGKILL");
  await service.process.exited;
  await context.servers.ledger.forget(service.process.pid);
}

export function managerOf(context: DemoContext): ManagerApi {
  const [manager] = alive(context, "index-manager");
  if (manager === undefined) throw new LimError("internal", "no manager runs");
  return apiOf(context, manager);
}

export function apiOf({ apiToken }: DemoContext, manager: Service): ManagerApi {
  return new ManagerApi(manager.url, { token: apiToken });
}

/** The demo's own truth: every vector of a list, searched exactly. */
export function oracleOf(source: FaceSource, list: DemoList): ExactIndex {
  const exact = createExactIndex({ dim: source.dim, capacity: list.faces.length });
  const ids = new Uint8Array(list.faces.length * 16);
  const vectors = new Float32Array(list.faces.length * source.dim);
  for (const [row, face] of list.faces.entries()) {
    writeUuid(face.faceId, ids, row * 16);
    vectors.set(face.vector, row * source.dim);
  }
  exact.upsertMany(ids, vectors);
  return exact;
}

export async function exactMatches(
  oracle: ExactIndex,
  probes: readonly Probe[],
  limit: number,
  signal: AbortSignal,
): Promise<Match[][]> {
  const queries = new Float32Array(probes.length * oracle.dim);
  for (const [row, probe] of probes.entries()) queries.set(probe.vector, row * oracle.dim);
  return oracle.search(queries, { limit, signal });
}

/** Until `matchers` serve the label through the plugin. */
export async function untilServed(context: DemoContext, list: DemoList, matchers: number): Promise<void> {
  const label = labelOf(context, list);
  await eventually(
    `${list.name} is served by ${matchers} matchers`,
    () =>
      context.indexOnly.labels().filter((served) => served.label === label).length >= matchers || undefined,
    { timeoutMs: 60_000 },
  );
}

export function taskSeconds(task: Task): number {
  return (Date.parse(task.end_time ?? "") - Date.parse(task.start_time ?? "")) / 1000;
}
