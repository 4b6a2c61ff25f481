import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeUuid } from "@lim/contracts";
import { type IndexStorage, openIndexStorage, type PublishedIndex } from "@lim/index-storage";
import { eventually } from "@lim/testkit";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";
import { afterEach, beforeEach, expect, test } from "vitest";
import { chanceVector } from "../feeder.ts";
import { createFindings, type Findings } from "../findings.ts";
import { chancesOf } from "../random.ts";
import { createReader } from "./reader.ts";

const dim = 16;
const faces = 40;
let root: string;
let storage: IndexStorage;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "lim-reader-"));
  storage = await openIndexStorage({ root });
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function publish(indexId = randomUUID()): Promise<PublishedIndex> {
  const label = randomUUID();
  const engine = await loadEngine("hnsw");
  const params = { m: 8, efConstruction: 40 };
  const keyed = createKeyedIndex(await engine.create({ dim, capacity: faces, params }));
  const ids = new Uint8Array(faces * 16);
  const vectors = new Float32Array(faces * dim);
  const chances = chancesOf(1);
  for (let i = 0; i < faces; i++) {
    writeUuid(randomUUID(), ids, i * 16);
    vectors.set(chanceVector(chances, dim), i * dim);
  }
  await keyed.addNew(ids, vectors);
  const staging = await storage.stage({ label, indexId, attempt: 1 });
  const content = {
    label,
    historyId: randomUUID(),
    descriptorVersion: 1,
    revision: 1,
    engine: engine.name,
    params,
    mode: "rebuild",
    removedSinceRebuild: 0,
    skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
  } as const;
  const published = await staging.publish(keyed, content, { phases: {} });
  await keyed.close();
  return published;
}

/** Reads until enough indexes were opened (or refused), and a few listings more. */
async function readWhile(
  during: () => Promise<void>,
  removedTasks: ReadonlyMap<string, number> = new Map(),
): Promise<Findings> {
  const findings = createFindings();
  const stop = new AbortController();
  const running = createReader({ storage, removedTasks, findings }).run(stop.signal);
  const listings = () => findings.figures().reader?.listings ?? 0;
  const more = async () => {
    const before = listings();
    await eventually("two more listings", () => (listings() >= before + 2 ? true : undefined));
  };
  await more();
  await during();
  await more();
  stop.abort();
  await running;
  return findings;
}

test("the reader finds nothing to say of indexes that are whole", async () => {
  await publish();
  const findings = await readWhile(async () => void (await publish()));
  expect(findings.violations).toEqual([]);
  expect(findings.figures().reader?.["verified and opened"]).toBe(2);
});

test("I2: the reader tells of an index without meta.json", async () => {
  const findings = await readWhile(
    async () => void (await mkdir(join(root, randomUUID(), randomUUID()), { recursive: true })),
  );
  expect(findings.violations[0]).toMatch(/partial index .*missing/);
});

test("I2: the reader tells of an index with a changed byte, whose size is right", async () => {
  const { label, indexId } = await publish();
  const path = join(root, label, indexId, "index.dat");
  const bytes = await readFile(path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  await writeFile(path, bytes);
  const findings = await readWhile(async () => {});
  expect(findings.violations[0]).toMatch(new RegExp(`${indexId}.* was visible and not usable.*corrupt`));
});

test("I2: the reader tells of an index that is replaced by another, and of one that shrinks", async () => {
  const { label, indexId } = await publish();
  const swapped = await readWhile(async () => {
    const other = await publish();
    const meta = join(root, other.label, other.indexId);
    await rm(join(root, label, indexId), { recursive: true });
    await rename(meta, join(root, label, indexId));
  });
  expect(swapped.violations.join()).toMatch(/partial index .*foreign/);
  const third = await publish();
  const cut = await readWhile(async () => {});
  expect(cut.violations.join()).toMatch(/foreign/);
  await truncate(join(root, third.label, third.indexId, "ids.dat"), 16);
  const truncated = await readWhile(async () => {});
  expect(truncated.violations.join()).toMatch(/truncated/);
});

test("I4: the reader tells of an index whose task was removed", async () => {
  const { indexId } = await publish();
  const findings = await readWhile(async () => {}, new Map([[indexId, performance.now()]]));
  expect(findings.violations[0]).toMatch(`removed task ${indexId} is visible`);
});
