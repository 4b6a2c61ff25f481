import { join } from "node:path";
import { openFacesDb } from "@lim/faces-db";
import { connectSql, freePort, type SqlClient, startPostgres } from "@lim/local-servers";
import { eventually, type FlakyProxy, startFlakyProxy } from "@lim/testkit";
import { availableEngines, type EngineAdapter, loadEngine, type VectorIndex } from "@lim/vector-index";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rebuildFromSnapshot } from "../src/rebuild.ts";
import { createHolder, type Holder } from "./holding.ts";
import { contextOf } from "./in-process.ts";
import {
  buildRequest,
  createList,
  expectNextAttempt,
  expectNothingOf,
  type Stack,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

const engineNames = await availableEngines();
const faces = 2000;
const buildConnection = "application_name = 'lim-indexer-build'";

let stack: Stack;
let listId: string;
let proxy: FlakyProxy;
let holder: Holder;
let indexer: TestIndexer;
let sql: SqlClient;
beforeAll(async () => {
  stack = await startStack();
  listId = await createList(stack.db, faces);
  holder = createHolder(stack);
  const url = new URL(stack.databaseUrl);
  proxy = await startFlakyProxy(Number(url.port));
  url.port = String(proxy.port);
  url.hostname = "127.0.0.1";
  indexer = await startIndexer({ ...stack, databaseUrl: url.href }, holder.env);
  sql = await connectSql(stack.databaseUrl);
});
afterAll(async () => {
  await indexer?.process.stop();
  await proxy?.close();
  await sql?.close();
  await stack?.close();
});

/** The build's transaction is open and its COPY has begun, and stands still on the lock of `blocker`. */
async function amidSnapshot(blocker: SqlClient) {
  const request = buildRequest(listId);
  await holder.arm({ process: "build", phase: "snapshot" });
  await indexer.post("/index_list", request);
  const pid = await holder.held();
  await blocker.query("BEGIN", []);
  await blocker.query("LOCK TABLE faces.list_face IN ACCESS EXCLUSIVE MODE", []);
  process.kill(pid, "SIGCONT");
  await eventually("the build's COPY", async () => {
    const rows = await sql.query(
      `SELECT 1 FROM pg_stat_activity WHERE ${buildConnection} AND query LIKE 'COPY%' AND wait_event_type = 'Lock'`,
      [],
    );
    return rows.length > 0 ? true : undefined;
  });
  return request;
}

describe("Postgres lost in the middle of a snapshot", () => {
  it.each([
    ["its connections are cut", async () => proxy.cut()],
    [
      "the server ends its sessions, as it does when it restarts",
      async () =>
        void (await sql.query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${buildConnection}`,
          [],
        )),
    ],
  ])("I2 %s: 26020, nothing stays, the next attempt succeeds", async (_name, lose) => {
    const blocker = await connectSql(stack.databaseUrl);
    try {
      const request = await amidSnapshot(blocker);
      await lose();
      expect((await indexer.outcome(request)).error?.error_code).toBe(26020);
      await expectNothingOf(stack, request);
      expect((await indexer.state()).state).toBe("idle");
      await blocker.query("ROLLBACK", []);
      proxy.resume();
      await expectNextAttempt(stack, indexer, request, faces);
    } finally {
      proxy.resume();
      await blocker.close();
    }
  });

  it("I2 the server restarts: 26020, nothing stays, the same service builds the next attempt", async () => {
    const ownDir = join(stack.scratch, "postgres");
    const port = await freePort();
    const launch = () => startPostgres({ dir: ownDir, port, database: "lim" });
    let server = await launch();
    const db = openFacesDb({ connectionString: server.url });
    await db.migrate();
    const own: Stack = { ...stack, db, databaseUrl: server.url };
    const ownListId = await createList(db, 200);
    const service = await startIndexer(own, holder.env);
    try {
      const request = buildRequest(ownListId);
      await holder.arm({ process: "build", phase: "snapshot" });
      await service.post("/index_list", request);
      const pid = await holder.held();
      await server.stop();
      server = await launch();
      process.kill(pid, "SIGCONT");
      expect((await service.outcome(request)).error?.error_code).toBe(26020);
      await expectNothingOf(own, request);
      await expectNextAttempt(own, service, request, 200);
    } finally {
      await service.process.stop();
      await db.close();
      await server.stop();
    }
  });
});

describe("reading and inserting", () => {
  it("the snapshot's transaction ends as soon as all is read, while insertion goes on", async () => {
    const request = buildRequest(listId, { params: { m: 64, ef_construction: 1000 } });
    await holder.arm({ process: "build", phase: "build" });
    await indexer.post("/index_list", request);
    const pid = await holder.held();
    const { progress } = await indexer.state();
    expect(progress).toMatchObject({ phase: "build", total: faces });
    expect(progress?.done).toBeLessThan(faces);
    const sessions = await sql.query(
      `SELECT state, xact_start FROM pg_stat_activity WHERE ${buildConnection}`,
      [],
    );
    for (const { xact_start } of sessions) expect(xact_start).toBeNull();
    process.kill(pid, "SIGCONT");
    expect((await indexer.outcome(request)).error).toBeNull();
  });

  it.each(engineNames)("engine %s inserts while Postgres keeps back what is left", async (name) => {
    const gate = Promise.withResolvers<void>();
    let first = Number.POSITIVE_INFINITY;
    let inserted = 0;
    const engine = inserting(await loadEngine(name), async (rows, insert) => {
      await insert();
      inserted += rows;
      if (inserted >= first) gate.resolve();
    });
    const db: Stack["db"] = {
      ...stack.db,
      async openSnapshot(options) {
        const snapshot = await stack.db.openSnapshot(options);
        // The rest comes only once the first batch was inserted: a build that waited for the whole list would hang.
        const batches = async function* () {
          for await (const batch of snapshot.batches) {
            if (first !== Number.POSITIVE_INFINITY) await gate.promise;
            else first = batch.count;
            yield batch;
          }
        };
        return { ...snapshot, batches: batches(), close: () => snapshot.close() };
      },
    };
    const context = await contextOf(stack, buildRequest(listId, { engine: name }), { engine, db });
    const built = await rebuildFromSnapshot(context, join(stack.scratch, `${name}.kept-back`));
    expect(first).toBeLessThan(faces);
    expect(built.keyed.count).toBe(faces);
    await built.keyed.close();
  });

  it.each(engineNames)("Postgres is read to the end while engine %s stands still", async (name) => {
    const drained = Promise.withResolvers<void>();
    // Nothing is inserted before the transaction has ended: a reader that waited for it would hang.
    const engine = inserting(await loadEngine(name), async (_rows, insert) => {
      await drained.promise;
      await insert();
    });
    const report = (phase: string) => {
      if (phase === "build") drained.resolve();
    };
    const context = await contextOf(stack, buildRequest(listId, { engine: name }), { engine, report });
    const built = await rebuildFromSnapshot(context, join(stack.scratch, `${name}.stands-still`));
    expect(built.keyed.count).toBe(faces);
    await built.keyed.close();
  });
});

/** The engine, whose insertions `around` carries out. */
function inserting(
  engine: EngineAdapter,
  around: (rows: number, insert: () => Promise<void>) => Promise<void>,
): EngineAdapter {
  const wrapped = (index: VectorIndex): VectorIndex => {
    const add = index.add.bind(index);
    index.add = (positions, ...rest) => around(positions.length, () => add(positions, ...rest));
    const addSpooled = index.addSpooled?.bind(index);
    if (addSpooled) index.addSpooled = (rows, ...rest) => around(rows, () => addSpooled(rows, ...rest));
    return index;
  };
  const createSpooled = engine.createSpooled?.bind(engine);
  return {
    name: engine.name,
    version: engine.version,
    readsVectors: engine.readsVectors,
    estimateMemoryBytes: (options) => engine.estimateMemoryBytes(options),
    load: (options) => engine.load(options),
    create: async (options) => wrapped(await engine.create(options)),
    ...(createSpooled && { createSpooled: async (options) => wrapped(await createSpooled(options)) }),
  };
}
