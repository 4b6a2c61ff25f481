import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connectRedis, createTaskStore, defaultKeyNames } from "@lim/coordination";
import { askRedis, connectSql } from "@lim/local-servers";
import { createFaceGenerator, createTestDatabase, startTestRedis } from "@lim/testkit";
import { loadEngine, rerankKinds } from "@lim/vector-index";
import { expect, test } from "vitest";
import { root } from "./blocks.ts";

const page = readFileSync(join(root, "docs/operations.md"), "utf8");
const dim = 512;

/** The figure of a row of the page's table of sizes, in bytes. */
function saidBytes(what: string): number {
  const [, number, unit] = new RegExp(`^\\| ${what} \\|.*?([\\d.]+) (KB|MB) `, "m").exec(page) ?? [];
  return Number(number) * (unit === "MB" ? 1e6 : 1e3);
}

/** Within a fifth: servers differ from release to release. */
function expectNear(what: string, bytes: number): void {
  console.log(`${what}: ${(bytes / 1000).toFixed(2)} KB`);
  expect(bytes / saidBytes(what), `${what}: ${bytes} bytes`).toBeGreaterThan(0.8);
  expect(bytes / saidBytes(what), `${what}: ${bytes} bytes`).toBeLessThan(1.25);
}

test("what a face takes in Postgres", async () => {
  const faces = 3_000;
  const database = await createTestDatabase();
  const sql = await connectSql(database.url);
  const sizeBytes = async () => {
    const [row] = await sql.query(
      "SELECT sum(pg_total_relation_size(c.oid))::float8 AS bytes FROM pg_class c " +
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'faces' AND c.relkind = 'r'",
    );
    return Number(row?.bytes);
  };
  try {
    const before = await sizeBytes();
    const rows = createFaceGenerator().matrix({ firstPerson: 0, persons: faces });
    const { listId } = await database.db.createList({ name: "sizing" });
    await database.db.importRows({
      listId,
      descriptorVersion: 1,
      dim,
      sourceKey: "sizing",
      rows: (async function* () {
        for (let i = 0; i < faces; i++)
          yield { line: i + 1, externalId: `person-${i}`, vector: rows.subarray(i * dim, (i + 1) * dim) };
      })(),
    });
    expectNear("a face in Postgres", ((await sizeBytes()) - before) / faces);
  } finally {
    await sql.close();
    await database.drop();
  }
});

test("what tasks and waiting requests take in Redis", async () => {
  const count = 2_000;
  const server = await startTestRedis();
  const port = Number(new URL(server.url).port);
  const redis = connectRedis({ url: server.url, name: "sizing" });
  const usedBytes = async () => {
    const info = await askRedis(port, ["INFO", "memory"], 60_000);
    return Number(/used_memory_dataset:(\d+)/.exec(info)?.[1]);
  };
  const perOne = async (fill: () => Promise<unknown>) => {
    const before = await usedBytes();
    await fill();
    return ((await usedBytes()) - before) / count;
  };
  try {
    const store = createTaskStore({ redis, keys: defaultKeyNames });
    const tasks = await perOne(async () => {
      for (let i = 0; i < count; i++)
        await store.create({ taskId: randomUUID(), listId: randomUUID(), mode: "rebuild", trigger: "plan" });
    });
    expectNear("a task in Redis", tasks);
    // As a request is on its stream; the descriptor's bytes are what counts.
    const script = `for i = 1, ${count} do
      redis.call('XADD', 'lim_match:sizing', '*', 'descriptor', string.rep('x', ${dim * 4 + 16}), 'rid', '${randomUUID()}',
        'limit', '10', 'threshold', '0', 'timeout_ms', '5000', 'response_stream', 'lim_reply:${randomUUID()}') end return 1`;
    expectNear(
      "a waiting request in Redis",
      await perOne(() => askRedis(port, ["EVAL", script, "0"], 60_000)),
    );
  } finally {
    await redis.close();
    await server.stop();
  }
});

test("the formulas for an index in memory are those that matchers load by", async () => {
  const faces = 1_000_000;
  const m = 16;
  const rowBytes = { float32: 4 * dim, float16: 2 * dim, file: 0, off: 0 };
  for (const rerank of rerankKinds) {
    const engine = await loadEngine("hnsw", { rerank });
    const estimate = engine.estimateMemoryBytes({ dim, capacity: faces, params: { m, efConstruction: 200 } });
    const formula = faces * (dim + 8 * m + 38 + rowBytes[rerank]);
    expect(estimate / formula, rerank).toBeGreaterThan(0.97);
    expect(estimate / formula, rerank).toBeLessThan(1.03);
  }
  expect(page).toContain("n × (d + 8 M + 54 + r)");
});
