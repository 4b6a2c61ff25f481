// Process of callers: what they cost is told apart from what answers them.
import { mkdir, writeFile } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { dirname } from "node:path";
import { serveEngine } from "../engine/rpc.ts";
import { readRows, rowsIn } from "../engine/vector-file.ts";
import { type ClosedLoopFigures, closedLoop } from "../load/closed-loop.ts";
import { type OpenLoopFigures, openLoop } from "../load/open-loop.ts";
import { type Caller, type CallerArgs, connectCaller } from "./callers.ts";

export interface CallFigures extends ClosedLoopFigures {
  /** All requests, failed ones too. */
  requests: number;
  /** Processor time of the process. */
  cpuSeconds: number;
  /** Of the first few failures. */
  reasons: string[];
}

export interface OpenFigures extends OpenLoopFigures {
  reasons: string[];
}

export interface CallerOperations {
  [name: string]: (args: never) => Promise<unknown>;
  connect(args: CallerArgs & { dim: number; queriesPath: string }): Promise<void>;
  /** Callers with one request at a time. */
  call(args: { callers: number; durationMs: number }): Promise<CallFigures>;
  /** Requests at a rate, from now until `end`. */
  begin(args: { perS: number; seed: number }): Promise<void>;
  end(): Promise<OpenFigures>;
  beginProfile(): Promise<void>;
  /** Writes what the processor did since `beginProfile`. */
  endProfile(args: { path: string }): Promise<void>;
}

const maxReasons = 3;
/** Requests in flight past which those of a rate are not sent. */
const maxInFlight = 8_192;
const dayMs = 86_400_000;

let caller: Caller | undefined;
let reasons: string[] = [];
let rate: { stop: AbortController; figures: Promise<OpenLoopFigures> } | undefined;

async function ask(n: number): Promise<boolean> {
  try {
    const found = await caller?.ask(n);
    if (found) return true;
    if (reasons.length < maxReasons) reasons.push("an answer without matches");
  } catch (thrown) {
    if (reasons.length < maxReasons) reasons.push(String(thrown));
  }
  return false;
}

async function connect(args: CallerArgs & { dim: number; queriesPath: string }): Promise<void> {
  const { dim, queriesPath } = args;
  await caller?.close();
  const count = rowsIn(queriesPath, dim);
  const rows = readRows(queriesPath, dim, 0, count);
  const queries = Array.from({ length: count }, (_, i) => rows.subarray(i * dim, (i + 1) * dim));
  caller = await connectCaller(args, queries);
}

async function call({ callers, durationMs }: { callers: number; durationMs: number }): Promise<CallFigures> {
  reasons = [];
  const cpu = process.cpuUsage();
  const figures = await closedLoop({ callers, durationMs, ask });
  const { user, system } = process.cpuUsage(cpu);
  const requests = figures.latency.count + figures.failed;
  return { ...figures, requests, cpuSeconds: (user + system) / 1e6, reasons };
}

async function begin({ perS, seed }: { perS: number; seed: number }): Promise<void> {
  if (rate) throw new Error("requests are being sent already");
  reasons = [];
  const stop = new AbortController();
  rate = {
    stop,
    figures: openLoop({ perS, durationMs: dayMs, seed, maxInFlight, ask, signal: stop.signal }),
  };
}

async function end(): Promise<OpenFigures> {
  if (!rate) throw new Error("no requests are being sent");
  rate.stop.abort();
  const figures = await rate.figures;
  rate = undefined;
  return { ...figures, reasons };
}

const session = new Session();

async function beginProfile(): Promise<void> {
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.start");
}

async function endProfile({ path }: { path: string }): Promise<void> {
  const { profile } = await session.post("Profiler.stop");
  session.disconnect();
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, JSON.stringify(profile));
}

serveEngine({ connect, call, begin, end, beginProfile, endProfile } satisfies CallerOperations);
