import { closeSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import hnswlib, { type HierarchicalNSW } from "hnswlib-node";
import { vectorIndexLimits } from "../limits.ts";
import { vectorFault } from "../vectors.ts";
import { checkEngineFile, trimCapacity } from "./file-format.ts";
import { EngineFault, type EngineReply, type EngineRequest, type EngineState } from "./protocol.ts";

type Request<Op extends EngineRequest["op"]> = Extract<EngineRequest, { op: Op }>;
type Answer = Omit<Extract<EngineReply, { ok: true }>, "ok" | "state">;

/** The engine's object and what it does not know of itself. It never leaves this thread. */
interface Held {
  index: HierarchicalNSW;
  dim: number;
  m: number;
  slots: number;
  /** Positions from here on are of a change that is not complete yet: no search returns them. */
  visible: number;
  removedCount: number;
  /** One byte a position: 1 = hidden. */
  removed: Uint8Array;
  /** The library takes plain arrays of numbers only; one is enough, it copies. */
  row: number[];
}

let held: Held | undefined;

function current(): Held {
  if (!held) throw new EngineFault("engine_failed", "the index was closed or never opened");
  return held;
}

function stateOf(): EngineState {
  if (!held) return { slots: 0, count: 0, capacity: 0 };
  return {
    slots: held.slots,
    count: held.visible - held.removedCount,
    capacity: held.index.getMaxElements(),
  };
}

function create(request: Request<"create">): Answer {
  const index = new hnswlib.HierarchicalNSW("ip", request.dim);
  index.initIndex(request.capacity, request.m, request.efConstruction, request.seed, false);
  held = {
    index,
    dim: request.dim,
    m: request.m,
    slots: 0,
    visible: 0,
    removedCount: 0,
    removed: new Uint8Array(request.capacity),
    row: new Array<number>(request.dim).fill(0.5),
  };
  return {};
}

function load(request: Request<"load">): Answer {
  const { dim, slots, m, path } = request;
  const removed = new Uint8Array(Math.max(slots, 1));
  for (const position of request.removed) {
    if (position >= slots || removed[position] === 1)
      throw new EngineFault("index_refused", `removed position ${position} of ${slots}, or named twice`);
    removed[position] = 1;
  }
  checkEngineFile(path, { dim, slots, m, isRemoved: (position) => removed[position] === 1 });
  const index = new hnswlib.HierarchicalNSW("ip", dim);
  index.readIndexSync(path, false);
  if (index.getCurrentCount() !== slots || index.getNumDimensions() !== dim)
    throw new EngineFault("index_refused", `engine holds ${index.getCurrentCount()} elements, not ${slots}`);
  const row = new Array<number>(dim).fill(0.5);
  held = { index, dim, m, slots, visible: slots, removedCount: request.removed.length, removed, row };
  return {};
}

function check(vectors: Float32Array, remove?: Uint32Array): Answer {
  const fault = vectorFault(vectors, current().dim);
  if (fault) throw new EngineFault("bad_input", fault);
  if (remove) checkPositions(current(), remove);
  return {};
}

function setRow(from: Held, vectors: Float32Array, start: number): number[] {
  for (let i = 0; i < from.dim; i++) from.row[i] = vectors[start + i] as number;
  return from.row;
}

function reserve(target: Held, needed: number): void {
  const capacity = target.index.getMaxElements();
  if (needed <= capacity) return;
  if (needed > vectorIndexLimits.maxSlots)
    throw new EngineFault("bad_input", `an index holds at most ${vectorIndexLimits.maxSlots} positions`);
  const grown = Math.min(vectorIndexLimits.maxSlots, Math.max(needed, Math.ceil(capacity * 1.25), 1024));
  target.index.resizeIndex(grown);
  const removed = new Uint8Array(grown);
  removed.set(target.removed.subarray(0, target.slots));
  target.removed = removed;
}

function hide(target: Held, position: number): void {
  target.index.markDelete(position);
  target.removed[position] = 1;
  target.removedCount++;
}

function checkPositions(target: Held, positions: Uint32Array): void {
  const seen = new Set<number>();
  for (const position of positions) {
    if (position >= target.slots || target.removed[position] === 1 || seen.has(position))
      throw new EngineFault("bad_input", `position ${position} is unknown, removed, or named twice`);
    seen.add(position);
  }
}

function insert({ first, add }: Pick<Request<"insert">, "first" | "add">): Answer {
  const target = current();
  check(add);
  const rows = add.length / target.dim;
  const begin = target.slots;
  if (rows > 0 && first !== begin)
    throw new EngineFault("bad_input", `the next position is ${begin}, got ${first}`);
  reserve(target, begin + rows);
  for (let i = 0; i < rows; i++) {
    target.index.addPoint(setRow(target, add, i * target.dim), target.slots);
    target.slots++;
  }
  return {};
}

/** What was added of a change that fails, now or in a step before, must not be found; its positions stay used. */
function orAbandon(step: () => Answer): Answer {
  try {
    return step();
  } catch (thrown) {
    const target = current();
    for (let position = target.visible; position < target.slots; position++) hide(target, position);
    target.visible = target.slots;
    throw thrown;
  }
}

/** Adds the last rows of a change, and makes all of it visible together. */
function change(request: Request<"change">): Answer {
  const target = current();
  checkPositions(target, request.remove);
  insert(request);
  target.visible = target.slots;
  for (const position of request.remove) hide(target, position);
  return {};
}

function search(request: Request<"search">): Answer {
  const { index, dim, slots, visible, removedCount } = current();
  check(request.queries);
  const queryCount = request.queries.length / dim;
  const counts = new Uint32Array(queryCount);
  const positions = new Uint32Array(queryCount * request.k);
  const values = new Float32Array(queryCount * request.k);
  // So many more as are not to be returned yet. The library throws on a k above what it holds.
  const k = Math.min(request.k + slots - visible, slots - removedCount);
  // Not kept by the file and reset by every load, so it is set on every search.
  index.setEf(Math.max(request.ef, k, 1));
  for (let query = 0; query < queryCount && k > 0; query++) {
    const found = index.searchKnn(setRow(current(), request.queries, query * dim), k);
    const start = query * request.k;
    let count = 0;
    for (let i = 0; i < found.neighbors.length && count < request.k; i++) {
      const position = found.neighbors[i] as number;
      if (position >= visible) continue;
      positions[start + count] = position;
      const similarity = 1 - (found.distances[i] as number);
      values[start + count] = similarity <= 0 ? 0 : similarity >= 1 ? 1 : similarity;
      count++;
    }
    counts[query] = count;
  }
  return { counts, positions, values };
}

function read(positions: Uint32Array): Answer {
  const { index, dim, slots, removed } = current();
  const values = new Float32Array(positions.length * dim);
  for (let i = 0; i < positions.length; i++) {
    const position = positions[i] as number;
    if (position >= slots || removed[position] === 1)
      throw new EngineFault("bad_input", `position ${position} is unknown or removed`);
    values.set(index.getPoint(position), i * dim);
  }
  return { values };
}

function errorCode(thrown: unknown): string {
  return (thrown as NodeJS.ErrnoException | undefined)?.code ?? "";
}

/** The library ignores failed writes: writing on where it stopped tells why, if the disk is the reason. */
function reasonOfShortFile(path: string, found: string): EngineFault {
  try {
    const fd = openSync(path, "a");
    try {
      const zeros = new Uint8Array(1 << 20);
      for (let i = 0; i < 4; i++) writeSync(fd, zeros);
    } finally {
      closeSync(fd);
    }
  } catch (thrown) {
    const code = errorCode(thrown);
    if (code === "ENOSPC" || code === "EDQUOT")
      return new EngineFault("disk_full", `${code} while writing ${path}`);
  }
  return new EngineFault("engine_failed", `${path} was not written completely: ${found}`);
}

function save(path: string): Answer {
  const { index, dim, m, slots, removed } = current();
  try {
    // Tells of a missing folder, missing rights or a full disk, none of which the library reports.
    closeSync(openSync(path, "w"));
  } catch (thrown) {
    const code = errorCode(thrown);
    const full = code === "ENOSPC" || code === "EDQUOT";
    throw new EngineFault(full ? "disk_full" : "engine_failed", `cannot write ${path}: ${code}`);
  }
  index.writeIndexSync(path);
  try {
    const written = statSync(path).size;
    trimCapacity(path, slots);
    checkEngineFile(path, { dim, slots, m, isRemoved: (position) => removed[position] === 1 });
    if (statSync(path).size !== written)
      throw new EngineFault("engine_failed", `${path} changed while saving`);
  } catch (thrown) {
    const reason = reasonOfShortFile(path, thrown instanceof Error ? thrown.message : String(thrown));
    rmSync(path, { force: true });
    throw reason;
  }
  return {};
}

function handle(request: EngineRequest): Answer {
  switch (request.op) {
    case "create":
      return create(request);
    case "load":
      return load(request);
    case "check":
      return check(request.vectors, request.remove);
    case "insert":
      return orAbandon(() => insert(request));
    case "change":
      return orAbandon(() => change(request));
    case "search":
      return search(request);
    case "read":
      return read(request.positions);
    case "save":
      return save(request.path);
    case "close":
      // The engine's memory is invisible to the garbage collector: hand it back now, not when the object is collected.
      held?.index.initIndex(1);
      held = undefined;
      return {};
  }
}

const port = parentPort;
if (!port) throw new Error("hnswlib/worker runs as a worker thread only");
port.on("message", (request: EngineRequest) => {
  let reply: EngineReply;
  const transfer: ArrayBuffer[] = [];
  try {
    const answer = handle(request);
    for (const part of [answer.counts, answer.positions, answer.values])
      if (part) transfer.push(part.buffer as ArrayBuffer);
    reply = { ok: true, state: stateOf(), ...answer };
  } catch (thrown) {
    const name = thrown instanceof EngineFault ? thrown.faultName : "engine_failed";
    const detail = thrown instanceof Error ? thrown.message : String(thrown);
    reply = { ok: false, state: stateOf(), error: { name, detail } };
  }
  port.postMessage(reply, transfer);
  if (request.op === "close") port.close();
});
