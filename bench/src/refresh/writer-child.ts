// Process that changes a list: what its vectors and its SQL cost is not on the thread that asks for matches.
import { setTimeout } from "node:timers/promises";
import { defaults } from "@lim/contracts";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { createFaceGenerator, type FaceGenerator, faceIdOf } from "@lim/testkit";
import { serveEngine } from "../engine/rpc.ts";
import {
  type Commit,
  epochMs,
  type FlowArgs,
  type FlowFigures,
  facesPerTransaction,
  type Kind,
  type WriterOperations,
  type WriterOptions,
} from "./writer-protocol.ts";

const { descriptorVersion } = defaults;
/** Transactions whose persons are not unlinked yet: those linked last are looked for when a flow has ended. */
const keptTransactions = 50;
/** Persons of each kind that are named for checks. */
const namedPersons = 50;
/** Faces of one transaction of a burst. */
const burstTransactionFaces = 500;

interface State extends WriterOptions {
  db: FacesDb;
  generator: FaceGenerator;
  /** Next person to link, and how many were replaced. */
  nextLink: number;
  replaced: number;
  /** First persons of those that can be unlinked, ten each, in the order of their links: those of the first half, then new ones. */
  linked: number[];
}

interface Transaction {
  kind: Kind;
  firstPerson: number;
  faces: { faceId: string; vector: Float32Array }[];
}

let state: State | undefined;
let prepared: Transaction[] = [];

function current(): State {
  if (!state) throw new Error("not opened yet");
  return state;
}

function facesFrom(from: State, firstPerson: number, count: number, image: number) {
  return Array.from({ length: count }, (_, i) => ({
    faceId: faceIdOf(from.name, firstPerson + i),
    vector: from.generator.vector(firstPerson + i, image),
  }));
}

/** The next transaction of a kind. Replaced are the persons of the second half, again and again with another image. */
function nextTransaction(from: State, kind: Kind): Transaction {
  if (kind === "unlink") return { kind, firstPerson: -1, faces: [] };
  if (kind === "link") {
    const firstPerson = from.nextLink;
    from.nextLink += facesPerTransaction;
    return { kind, firstPerson, faces: facesFrom(from, firstPerson, facesPerTransaction, 0) };
  }
  const half = from.faces / 2;
  const image = 2 + Math.floor(from.replaced / half);
  const firstPerson = half + (from.replaced % half);
  from.replaced += facesPerTransaction;
  return { kind, firstPerson, faces: facesFrom(from, firstPerson, facesPerTransaction, image) };
}

async function commit(to: State, transaction: Transaction): Promise<void> {
  const { db, listId, linked } = to;
  if (transaction.kind !== "unlink") {
    await db.putFaces({ listIds: [listId], descriptorVersion, faces: transaction.faces });
    if (transaction.kind === "link") linked.push(transaction.firstPerson);
    return;
  }
  // Longest linked first: of what was not written for want of time nothing can be unlinked.
  if (linked.length <= keptTransactions) throw new Error(`${to.faces} faces are too few for so many unlinks`);
  transaction.firstPerson = linked.shift() as number;
  const faceIds = Array.from({ length: facesPerTransaction }, (_, i) =>
    faceIdOf(to.name, transaction.firstPerson + i),
  );
  const changed = await db.unlinkFaces({ listId, faceIds });
  if (changed !== faceIds.length) throw new Error(`unlinked ${changed} of ${faceIds.length} faces`);
}

async function revisionOf({ db, listId }: State): Promise<number> {
  const [list] = await db.listStates({ listIds: [listId] });
  return list?.revision ?? 0;
}

/** Transactions of ten at a steady rate; one that is due while all writers are busy is made as soon as one is not. */
async function flow(args: FlowArgs): Promise<FlowFigures> {
  const to = current();
  const transactions = prepared;
  prepared = [];
  const everyMs = (1_000 * facesPerTransaction) / args.perS;
  const baseRevision = await revisionOf(to);
  const commits: Commit[] = [];
  const startedMs = performance.now();
  const untilMs = startedMs + args.durationMs;
  let next = 0;
  const write = async () => {
    for (let n = next++; n < transactions.length; n = next++) {
      const waitMs = startedMs + n * everyMs - performance.now();
      if (waitMs > 0) await setTimeout(waitMs);
      if (performance.now() >= untilMs) break;
      const transaction = transactions[n] as Transaction;
      await commit(to, transaction);
      const revision = baseRevision + (commits.length + 1) * facesPerTransaction;
      commits.push({ revision, atMs: epochMs(), kind: transaction.kind });
      written.add(transaction);
    }
  };
  const written = new Set<Transaction>();
  await Promise.all(Array.from({ length: to.writers }, write));
  const elapsedS = (performance.now() - startedMs) / 1_000;
  const revision = await revisionOf(to);
  if (revision !== baseRevision + commits.length * facesPerTransaction)
    throw new Error(`the list is at revision ${revision}, ${commits.length} commits after ${baseRevision}`);
  const lastOf = (kind: Kind) =>
    [...written]
      .filter((one) => one.kind === kind)
      .slice(-namedPersons)
      .map(({ firstPerson }) => firstPerson);
  return {
    commits,
    changesPerS: (commits.length * facesPerTransaction) / elapsedS,
    linkedPersons: lastOf("link"),
    unlinkedPersons: lastOf("unlink"),
  };
}

const operations: WriterOperations = {
  async open(args) {
    const db = openFacesDb({
      connectionString: args.databaseUrl,
      maxConnections: args.writers + 1,
      applicationName: "lim-bench-writers",
    });
    const generator = createFaceGenerator({
      dim: args.dim,
      effectiveDim: args.dim * 0.64,
      seed: args.modelSeed,
    });
    const linked = Array.from(
      { length: args.faces / 2 / facesPerTransaction },
      (_, i) => i * facesPerTransaction,
    );
    state = { ...args, db, generator, nextLink: args.faces, replaced: 0, linked };
  },
  async prepareFlow({ perS, durationMs, mix }) {
    const kinds = (["link", "replace", "unlink"] as const).flatMap((kind) =>
      Array.from({ length: mix[kind] }, () => kind),
    );
    const count = Math.ceil((perS * durationMs) / 1_000 / facesPerTransaction);
    prepared = Array.from({ length: count }, (_, n) =>
      nextTransaction(current(), kinds[(n * 7) % kinds.length] as Kind),
    );
  },
  flow,
  async prepareBurst({ faces }) {
    const to = current();
    prepared = [];
    for (let from = 0; from < faces; from += burstTransactionFaces) {
      const count = Math.min(burstTransactionFaces, faces - from);
      prepared.push({ kind: "link", firstPerson: to.nextLink, faces: facesFrom(to, to.nextLink, count, 0) });
      to.nextLink += count;
    }
  },
  async burst() {
    const startedMs = epochMs();
    const { db, listId } = current();
    for (const { faces } of prepared) await db.putFaces({ listIds: [listId], descriptorVersion, faces });
    prepared = [];
    return { startedMs, committedMs: epochMs(), revision: await revisionOf(current()) };
  },
};

serveEngine(operations);
