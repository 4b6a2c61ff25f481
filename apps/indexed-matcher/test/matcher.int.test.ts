import { randomUUID } from "node:crypto";
import { cp, mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { defaults, type EngineName, encodeDescriptor } from "@lim/contracts";
import { connectRedis, createLabelLocks, defaultKeyNames } from "@lim/coordination";
import { openIndexStorage } from "@lim/index-storage";
import { metricSections } from "@lim/service-kit";
import { corruptFile, eventually, faceIdOf } from "@lim/testkit";
import { availableEngines, createExactIndex } from "@lim/vector-index";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  announcers,
  createFilledList,
  dim,
  facesOf,
  type Harness,
  idBytes,
  publishIndex,
  type RunningMatcher,
  startHarness,
  startLoad,
  vectorOf,
} from "./harness.ts";

const engineNames = await availableEngines();

const people = 1_500;
let harness: Harness;
let matcher: RunningMatcher;

beforeAll(async () => {
  harness = await startHarness();
  matcher = await harness.startMatcher();
});
afterAll(async () => {
  await harness?.close();
});

/** A list with an index that `matcher` serves. */
async function servedList(
  space: string,
  count = 300,
  engine: EngineName = defaults.engine,
): Promise<{ listId: string; indexId: string }> {
  const listId = await createFilledList(harness, space, count);
  const indexId = await publishIndex(harness, harness.storage, listId, randomUUID(), engine);
  await untilServed(listId);
  return { listId, indexId };
}

async function untilServed(listId: string): Promise<void> {
  await eventually("label key", async () => (await announcers(harness, listId))[0]);
}

const linesOf = (pattern: RegExp) =>
  matcher.process.lines.flatMap((line) => {
    const { msg } = JSON.parse(line) as { msg: string };
    return pattern.test(msg) ? [msg] : [];
  });

/** A change shows in answers before its packet is logged. */
async function untilLogged(pattern: RegExp): Promise<void> {
  await eventually(`line ${pattern.source}`, () => linesOf(pattern)[0]);
}

test.each(engineNames)(
  "answers over the stream equal the exact search; HTTP tells what is loaded: %s",
  async (engine) => {
    const space = `exact ${engine}`;
    const { listId, indexId } = await servedList(space, people, engine);
    const exact = createExactIndex({ dim });
    const faces = facesOf(space, 0, people);
    const matrix = new Float32Array(people * dim);
    faces.forEach(({ vector }, i) => {
      matrix.set(vector, i * dim);
    });
    exact.upsertMany(idBytes(faces.map(({ faceId }) => faceId)), matrix);
    let found = 0;
    const probes = 100;
    try {
      for (let person = 0; person < probes; person++) {
        const probe = vectorOf(person * 7, 1);
        const [expected = []] = await exact.search(probe, { limit: 10 });
        const reply = await harness.match(listId, probe);
        expect(reply).toMatchObject({ status_code: 200, error: null, index_id: indexId, revision: people });
        expect(reply.result[0]?.[0]).toBe(expected[0]?.[0]);
        expect(reply.result[0]?.[1]).toBeCloseTo(expected[0]?.[1] ?? -1, 4);
        const ids = new Set(reply.result.map(([faceId]) => faceId));
        found += expected.filter(([faceId]) => ids.has(faceId)).length;
      }
    } finally {
      await exact.close();
    }
    expect(found / (probes * 10)).toBeGreaterThanOrEqual(0.98);
    const [index] = (await matcher.indexes()).filter(({ label }) => label === listId);
    expect(index).toMatchObject({
      index_id: indexId,
      revision: people,
      behind_by: 0,
      count: people,
      state: "serving",
    });
    // Counted after the answers are on their way.
    const metrics = await eventually("the last answer is counted", async () => {
      const text = await (await fetch(`${matcher.url}/metrics`)).text();
      const [searched, answered] = ["search", "answering"].map(
        (stage) => new RegExp(`lim_matcher_stage_seconds_count\\{stage="${stage}"\\} (\\d+)`).exec(text)?.[1],
      );
      return searched !== "0" && searched === answered ? text : undefined;
    });
    const sections = { ...metricSections["Every service"], ...metricSections["Indexed Matcher"] };
    for (const name of Object.keys(sections)) expect(metrics).toContain(`# TYPE ${name} `);
    expect(metrics).toMatch(/lim_matcher_stage_seconds_count\{stage="waiting"\} [1-9]/);
    expect(metrics).toMatch(/lim_matcher_stream_entries\{state="pending"\} 0/);
    expect(metrics).toMatch(/lim_matcher_stream_entries\{state="lag"\} 0/);
    expect(metrics).toMatch(/lim_matcher_load_seconds_count [1-9]/);
    expect(metrics).toMatch(/lim_matcher_requests_total\{outcome="ok"\} \d+/);
    expect(metrics).toMatch(/lim_matcher_labels\{state="serving"\} [1-9]/);
    expect(metrics).toMatch(/lim_matcher_stream_events_total\{event="answered"\} [1-9]/);
  },
);

test.each(engineNames)(
  "I5, I7: linked, unlinked and replaced faces show at once, in packets of ten, without a failed match: %s",
  async (engine) => {
    const space = `refresh ${engine}`;
    const { listId } = await servedList(space, 300, engine);
    const load = startLoad(harness, listId, 4, 300);
    await harness.db.putFaces({ listIds: [listId], descriptorVersion: 1, faces: facesOf(space, 300, 25) });
    const linked = 325;
    const hits = await Promise.all(
      Array.from({ length: 25 }, async (_, i) =>
        harness.match(listId, vectorOf(300 + i), { minRevision: linked }),
      ),
    );
    hits.forEach((reply, i) => {
      expect(reply.result[0]?.[0]).toBe(faceIdOf(space, 300 + i));
    });
    await untilLogged(new RegExp(`^Refresh index for: ${listId} has finished`));
    await untilLogged(/^Sync: 3->3, 0->0$/);

    const gone = [1, 2, 3, 4, 5].map((person) => faceIdOf(space, person));
    await harness.db.unlinkFaces({ listId, faceIds: gone });
    for (const person of [1, 2, 3, 4, 5]) {
      const reply = await harness.match(listId, vectorOf(person), { minRevision: linked + 5, limit: 100 });
      expect(reply.error).toBeNull();
      expect(reply.result.some(([faceId]) => gone.includes(faceId))).toBe(false);
    }
    await untilLogged(/^Sync: 0->0, 1->1$/);

    await harness.db.putFaces({
      listIds: [listId],
      descriptorVersion: 1,
      faces: [{ faceId: faceIdOf(space, 10), vector: vectorOf(9_999) }],
    });
    const replaced = await harness.match(listId, vectorOf(9_999), { minRevision: linked + 6 });
    expect(replaced.result[0]?.[0]).toBe(faceIdOf(space, 10));
    await untilLogged(/^Sync: 1->1, 1->1$/);

    const { replies, failures } = await load.stop();
    expect(failures).toEqual([]);
    expect(replies.length).toBeGreaterThan(0);
    for (const { revision, result } of replies)
      if ((revision ?? 0) >= linked + 5) expect(result.some(([faceId]) => gone.includes(faceId))).toBe(false);
    await eventually("key has revision and count", async () => {
      const text = await harness.raw.get(`matching_label__${listId}__${matcher.matcherId}`);
      const { revision, count } = JSON.parse(text ?? "{}") as { revision?: number; count?: number };
      return (revision === linked + 6 && count === 320) || undefined;
    });
  },
);

test("I7, I12: a newer index is swapped in under load and changes; no request fails, no revision goes back", async () => {
  const { listId, indexId } = await servedList("reload");
  const load = startLoad(harness, listId, 8, 300);
  let written = 300;
  let writing = true;
  const writer = (async () => {
    for (; writing; written++)
      await harness.db.putFaces({
        listIds: [listId],
        descriptorVersion: 1,
        faces: facesOf("reload", written, 1),
      });
  })();
  const seen = [indexId];
  for (let round = 0; round < 3; round++) {
    const next = await publishIndex(harness, harness.storage, listId);
    seen.push(next);
    await eventually(
      "answers come from the newer index",
      async () => (await harness.match(listId, vectorOf(1))).index_id === next || undefined,
    );
  }
  writing = false;
  await writer;
  const last = await harness.match(listId, vectorOf(written - 1), { minRevision: written });
  expect(last.result[0]?.[0]).toBe(faceIdOf("reload", written - 1));
  const { replies, failures } = await load.stop();
  expect(failures).toEqual([]);
  expect(new Set(replies.map((reply) => reply.index_id))).toEqual(new Set(seen));
});

test("I2: a corrupt newest index is refused, counted and told; the one before goes on, and a good one replaces it", async () => {
  const { listId, indexId } = await servedList("corrupt");
  await harness.db.putFaces({ listIds: [listId], descriptorVersion: 1, faces: facesOf("corrupt", 300, 1) });
  const elsewhere = join(harness.dir, "elsewhere");
  const bad = await publishIndex(harness, await openIndexStorage({ root: elsewhere }), listId);
  const from = join(elsewhere, listId, bad);
  await corruptFile(join(from, "index.dat"), { flipByteAt: -1_000 });
  await mkdir(join(harness.dir, "moving"), { recursive: true });
  await cp(from, join(harness.dir, "moving", bad), { recursive: true });
  await rename(join(harness.dir, "moving", bad), join(harness.storageRoot, listId, bad));
  await matcher.process.waitForLine(new RegExp(`${bad}.*the one before goes on`), { timeoutMs: 60_000 });
  const reply = await harness.match(listId, vectorOf(300), { minRevision: 301 });
  expect(reply.index_id).toBe(indexId);
  expect(reply.result[0]?.[0]).toBe(faceIdOf("corrupt", 300));
  expect(await (await fetch(`${matcher.url}/metrics`)).text()).toMatch(
    /lim_matcher_load_failures_total\{reason="index_refused"\} [1-9]/,
  );
  // A matcher that starts now falls back to the good one.
  const second = await harness.startMatcher();
  const [loaded] = (await second.indexes()).filter(({ label }) => label === listId);
  expect(loaded).toMatchObject({ index_id: indexId, state: "serving" });
  await second.process.stop();
  expect(await second.process.exited).toBe(0);
  const good = await publishIndex(harness, harness.storage, listId);
  await eventually(
    "the good one serves",
    async () => (await harness.match(listId, vectorOf(1))).index_id === good || undefined,
  );
});

test("one matcher at a time replaces a label's index: while another holds its lock, the old one serves on", async () => {
  const { listId, indexId } = await servedList("locked", 50);
  const connection = connectRedis({ url: harness.redis.url, name: "test-lock" });
  try {
    const locks = createLabelLocks({ redis: connection, keys: defaultKeyNames });
    const lock = await locks.tryAcquire(listId, { ttlMs: 30_000 });
    expect(lock).toBeDefined();
    const other = await servedList("unlocked", 50);
    const next = await publishIndex(harness, harness.storage, listId);
    const otherNext = await publishIndex(harness, harness.storage, other.listId);
    const idOf = async (label: string) => (await harness.match(label, vectorOf(1))).index_id;
    await eventually(
      "the other label goes ahead",
      async () => (await idOf(other.listId)) === otherNext || undefined,
    );
    expect(await idOf(listId)).toBe(indexId);
    await lock?.release();
    await eventually("replaced", async () => (await idOf(listId)) === next || undefined);
  } finally {
    await connection.close();
  }
});

test("I11: bad requests are answered with their code, the others of the same burst with their matches", async () => {
  const { listId } = await servedList("bad");
  const bad = (descriptor: Buffer) => harness.match(listId, vectorOf(0), { descriptor });
  const filled = (value: number, length: number) => new Float32Array(length).fill(value);
  const [good, nan, wrongDim, version, nonsense, zero, ahead] = await Promise.all([
    harness.match(listId, vectorOf(0)),
    bad(encodeDescriptor(filled(Number.NaN, dim), 1)),
    bad(encodeDescriptor(vectorOf(0).subarray(0, 32), 1)),
    bad(encodeDescriptor(vectorOf(0), 9)),
    bad(Buffer.from("no descriptor at all")),
    bad(encodeDescriptor(filled(0, dim), 1)),
    harness.match(listId, vectorOf(0), { minRevision: 1_000_000 }),
  ]);
  expect(good?.result[0]?.[0]).toBe(faceIdOf("bad", 0));
  const codes = [nan, wrongDim, version, nonsense, zero, ahead].map((reply) => reply?.error?.error_code);
  expect(codes).toEqual([26306, 26306, 26305, 26306, 26306, 26304]);
});

test("an index removed from the storage and a deleted list are unloaded, and their keys are gone", async () => {
  const removed = await servedList("removed", 50);
  const deleted = await servedList("deleted", 50);
  await harness.storage.remove({ indexId: removed.indexId });
  await harness.db.deleteList({ listId: deleted.listId });
  await eventually("both unloaded", async () => {
    const labels = (await matcher.indexes()).map(({ label }) => label);
    return !labels.includes(removed.listId) && !labels.includes(deleted.listId) ? true : undefined;
  });
  expect(await announcers(harness, removed.listId)).toEqual([]);
  expect(await announcers(harness, deleted.listId)).toEqual([]);
  // It comes back with a new index.
  await publishIndex(harness, harness.storage, removed.listId);
  await untilServed(removed.listId);
});

test("I9: after a flush of Redis keys, groups and answers come back by themselves", async () => {
  const { listId } = await servedList("flush", 50);
  await harness.raw.flushall();
  await untilServed(listId);
  await eventually("answers", async () => {
    const reply = await harness.match(listId, vectorOf(0), { timeoutMs: 1_000 }).catch(() => undefined);
    return reply?.result[0]?.[0] === faceIdOf("flush", 0) || undefined;
  });
});

test("a load past the memory limit is refused, said, and harms nothing", async () => {
  const { listId } = await servedList("memory", 50);
  const small = await harness.startMatcher({ LIM_MEMORY_LIMIT_RATIO: "0.0001" });
  const [index] = (await small.indexes()).filter(({ label }) => label === listId);
  expect(index).toMatchObject({ state: "failed", index_id: null });
  expect(String(index?.detail)).toContain("LIM_MEMORY_LIMIT_RATIO");
  expect(await announcers(harness, listId)).toEqual([matcher.matcherId]);
  await small.process.stop();
});

// The last ones: they need the streams for themselves.
test.each(["float16", "file", "off"])("serves engine hnsw with its vectors kept as: %s", async (rerank) => {
  await matcher.process.stop();
  const space = `rerank ${rerank}`;
  const { process: own } = await harness.startMatcher({ LIM_RERANK: rerank, TMPDIR: harness.dir });
  const { listId } = await servedList(space, 300, "hnsw");
  const workFolders = async () => (await readdir(harness.dir)).filter((name) => name.startsWith("lim-rows."));
  expect((await workFolders()).length > 0).toBe(rerank === "file");
  for (let person = 0; person < 20; person++) {
    const { result } = await harness.match(listId, vectorOf(person));
    expect(result[0]?.[0]).toBe(faceIdOf(space, person));
    expect(result[0]?.[1]).toBeCloseTo(1, rerank === "off" ? 1 : 2);
  }
  await harness.db.putFaces({ listIds: [listId], descriptorVersion: 1, faces: facesOf(space, 300, 1) });
  await harness.db.unlinkFaces({ listId, faceIds: [faceIdOf(space, 5)] });
  const added = await harness.match(listId, vectorOf(300), { minRevision: 302 });
  expect(added.result[0]?.[0]).toBe(faceIdOf(space, 300));
  const removed = await harness.match(listId, vectorOf(5), { minRevision: 302, limit: 300 });
  expect(removed.result.map(([faceId]) => faceId)).not.toContain(faceIdOf(space, 5));
  await own.stop();
  expect(await workFolders()).toEqual([]);
});
