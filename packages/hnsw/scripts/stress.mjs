// A long campaign: one writer, many searchers, sweeps, checks, saving and loading, on all metrics, with float32 rows; every
// result is compared with a model. node scripts/stress.mjs [--minutes 5] [--seed N] [--threads 4] [--keys 1500]
// Ends with 1 at the first violation, and prints the seed to run again with.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { HnswIndex, HnswPool } from "../src/index.ts";
import { History, hitsOf } from "../test/oracle.ts";
import { randomFrom } from "../test/support.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "5" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 31)) },
    threads: { type: "string", default: "4" },
    keys: { type: "string", default: "1500" },
  },
});
const seed = Number(values.seed);
const minutes = Number(values.minutes);
const maxKeys = Number(values.keys);
const deadlineMs = Date.now() + minutes * 60_000;
console.log(`stress: --minutes ${minutes} --seed ${seed} --threads ${values.threads} --keys ${maxKeys}`);

const pool = new HnswPool({ threads: Number(values.threads) });
const folder = mkdtempSync(join(tmpdir(), "hnsw-stress-"));
const random = randomFrom(seed);
const between = (from, to) => from + Math.floor(random() * (to - from));
const one = (list) => list[Math.floor(random() * list.length)];
const totals = {
  rounds: 0,
  changes: 0,
  searches: 0,
  checks: 0,
  loads: 0,
  sweeps: 0,
  missed: 0,
  graphHits: 0,
};

class Violation extends Error {}
const insist = (fault, where) => {
  if (fault !== undefined) throw new Violation(`${where}: ${fault}`);
};

/** One index from its making to its end. */
class Round {
  constructor() {
    this.dim = one([8, 33, 64, 128]);
    this.metric = one(["cosine", "ip", "l2"]);
    this.options = {
      dim: this.dim,
      metric: this.metric,
      m: one([4, 8, 16]),
      efConstruction: one([20, 100]),
      pool,
    };
    this.history = new History(this.metric);
    this.settled = 0;
    this.live = new Set();
    this.nextKey = 0;
    this.running = new Set();
    this.done = false;
  }

  row() {
    return Float32Array.from({ length: this.dim }, () => random() - 0.5);
  }

  some(count) {
    const live = [...this.live];
    return [...new Set(Array.from({ length: count }, () => one(live)))].filter((key) => key !== undefined);
  }

  /** The next change: keys with a row, or with none to remove them. */
  plan() {
    const chance = random();
    const fresh = (count) => Array.from({ length: count }, () => [this.nextKey++, this.row()]);
    if (this.live.size < maxKeys / 3 || (chance < 0.3 && this.live.size < maxKeys))
      return fresh(between(1, 200));
    if (chance < 0.55) return this.some(between(1, 150)).map((key) => [key, this.row()]);
    if (chance < 0.8) return this.some(between(1, 150)).map((key) => [key, undefined]);
    if (chance < 0.82) return [...this.live].map((key) => [key, undefined]);
    const some = this.some(between(2, 60));
    const half = some.length >> 1;
    return [
      ...some.slice(half).map((key) => [key, undefined]),
      ...some.slice(0, half).map((key) => [key, this.row()]),
      ...fresh(between(0, 30)),
    ];
  }

  async change() {
    const changes = this.plan();
    if (changes.length === 0) return;
    const added = changes.filter(([, row]) => row !== undefined);
    const remove = Uint32Array.from(changes.filter(([, row]) => row === undefined).map(([key]) => key));
    const keys = Uint32Array.from(added.map(([key]) => key));
    const vectors = new Float32Array(keys.length * this.dim);
    for (const [i, [, row]] of added.entries()) vectors.set(row, i * this.dim);
    this.history.apply(changes);
    if (remove.length === 0 && random() < 0.5) await this.index.upsert(keys, vectors);
    else if (keys.length === 0 && random() < 0.5) await this.index.remove(remove);
    else await this.index.change({ upsert: { keys, vectors }, remove });
    this.settled++;
    for (const [key, row] of changes) {
      if (row === undefined) this.live.delete(key);
      else this.live.add(key);
    }
    totals.changes++;
    this.history.forget(Math.min(this.settled, ...[...this.running].map(({ first }) => first)));
  }

  async search() {
    const first = this.settled;
    const last = this.history.version;
    const search = { first };
    this.running.add(search);
    const count = between(1, 12);
    const queries = new Float32Array(count * this.dim);
    for (let i = 0; i < count; i++) queries.set(this.row(), i * this.dim);
    const exact = one([false, false, undefined, true, "rows"]);
    const k = one([1, 10, 50, 3000]);
    const all = 4 * maxKeys + 4000;
    const certain = exact === true || exact === "rows";
    const ef = one([16, 64, 300, all]);
    try {
      const result = await this.index.search(queries, { k, ef, exact, depth: certain ? all : ef });
      for (let i = 0; i < count; i++) {
        totals.searches++;
        const query = queries.subarray(i * this.dim, (i + 1) * this.dim);
        const fault = this.history.fault(hitsOf(result, i), query, first, last, certain ? k : undefined);
        insist(fault, `search, exact ${exact}, k ${k}, ef ${ef}, states ${first}..${last}`);
      }
    } finally {
      this.running.delete(search);
    }
  }

  async check() {
    const report = await this.index.check();
    totals.checks++;
    insist(report.problems[0], "check");
    if (report.live !== this.live.size) insist(`${report.live} live, not ${this.live.size}`, "check");
    if (report.badLinks > 0) insist(`${report.badLinks} bad links`, "check");
    const keys = this.index.keys();
    if (keys.length !== this.live.size || keys.some((key) => !this.live.has(key)))
      insist("keys differ", "check");
    totals.missed += report.unreachable;
    totals.graphHits += report.live;
  }

  async sweep() {
    await this.index.sweep();
    totals.sweeps++;
    // Dead slots may be left: running searches hold them.
    const { deadLinks } = await this.index.check();
    if (deadLinks > 0) insist(`${deadLinks} links to dead slots`, "after a sweep");
  }

  /** The other index answers as this one did. No searches run meanwhile. */
  async reload() {
    const path = join(folder, "index.hnsw");
    const rowsPath = random() < 0.5 ? join(folder, "rows") : undefined;
    await this.index.save(path, { rowsPath });
    const query = this.row();
    const before = await this.index.search(query, { k: 20, exact: false, ef: 200 });
    await this.index.close();
    this.index = await HnswIndex.load(path, { pool, rowsPath });
    const after = await this.index.search(query, { k: 20, exact: false, ef: 200 });
    totals.loads++;
    if (String(before.keys) !== String(after.keys)) insist("other results than before", "load");
    await this.check();
  }

  async run() {
    this.index = await HnswIndex.create(this.options);
    try {
      for (let part = 0; part < 4 && Date.now() < deadlineMs; part++) {
        let done = false;
        const write = async () => {
          for (let i = 0; i < 40 && Date.now() < deadlineMs; i++) {
            await this.change();
            const chance = random();
            if (chance < 0.05) await this.sweep();
            else if (chance < 0.15) await this.check();
          }
        };
        const searcher = async () => {
          while (!done) await this.search();
        };
        const writing = write().finally(() => {
          done = true;
        });
        const all = await Promise.allSettled([writing, ...Array.from({ length: between(1, 12) }, searcher)]);
        for (const { reason } of all) if (reason !== undefined) throw reason;
        await this.check();
        await this.reload();
      }
    } finally {
      await this.index.close();
    }
  }
}

let failed = false;
let reportedMs = Date.now();
while (Date.now() < deadlineMs && !failed) {
  const round = new Round();
  try {
    await round.run();
    totals.rounds++;
  } catch (error) {
    failed = true;
    const { pool: _, ...options } = round.options;
    console.error(`seed ${seed}, round ${totals.rounds}, ${JSON.stringify(options)}`);
    console.error(error instanceof Violation ? `VIOLATION ${error.message}` : error);
  }
  if (Date.now() - reportedMs > 30_000) {
    reportedMs = Date.now();
    console.log(JSON.stringify(totals));
  }
}
await pool.close();
rmSync(folder, { recursive: true });
console.log(
  `${failed ? "FAILED" : "passed"}: ${JSON.stringify(totals)} (missed = slots that no link led to, at checks)`,
);
process.exit(failed ? 1 : 0);
