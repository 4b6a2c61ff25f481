import { readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, newestOf } from "@lim/index-storage";
import { eventually } from "@lim/testkit";
import type { Redis } from "ioredis";
import { type Findings, textOf } from "../findings.ts";
import type { Fleet } from "./fleet.ts";
import { indexesOf, labelKeys } from "./served.ts";
import type { ListTruth } from "./truth.ts";

const convergeLimitMs = 90_000;
const goneLimitMs = 10_000;
const group = "lim_matcher";
const streamPrefix = "lim_match:";

export interface RestDeps {
  db: FacesDb;
  storage: IndexStorage;
  redis: Redis;
  fleet: Pick<Fleet, "members">;
  truths: ReadonlyMap<string, ListTruth>;
  findings: Findings;
  descriptorVersion: number;
}

const pollMs = 200;

/** Faults and changes are over: every matcher serves every list from its newest index at its revision, and says so. */
export async function judgeConvergence(deps: RestDeps, limitMs = convergeLimitMs): Promise<void> {
  const startMs = performance.now();
  await eventually(
    "every matcher serves every list at its newest",
    async () => {
      const missing = await whatIsMissing(deps);
      if (missing.length > 0) throw new Error(missing.slice(0, 5).join("; "));
      return true;
    },
    { timeoutMs: limitMs, intervalMs: pollMs },
  ).catch((error: unknown) => deps.findings.violation(textOf(error)));
  deps.findings.count("rest", `convergence after ${Math.round((performance.now() - startMs) / 1_000)} s`);
}

async function whatIsMissing(deps: RestDeps): Promise<string[]> {
  const { db, storage, redis, fleet, truths, descriptorVersion } = deps;
  const missing: string[] = [];
  const listing = await storage.list();
  const lists = await db.listStates({ listIds: [...truths.keys()] });
  const keys = (await labelKeys(redis)) ?? [];
  const said = await Promise.all(
    fleet.members.map(async ({ place, life }) => {
      const url = place.service()?.url;
      return { name: place.name, id: life?.matcherId, indexes: (url && (await indexesOf(url))) || [] };
    }),
  );
  for (const list of lists) {
    const label = list.listId;
    const truth = truths.get(label);
    if (truth?.revision !== list.revision || truth.faceCount !== list.faceCount)
      missing.push(`the ledger of list ${label} is at ${truth?.revision} of ${list.revision}`);
    const newest = newestOf(listing, label, descriptorVersion, list)?.indexId;
    for (const { name, id, indexes } of said) {
      const served = indexes.find((index) => index.label === label);
      if (served?.revision !== list.revision || served.index_id !== newest || served.state !== "serving")
        missing.push(
          `${name} has list ${label} (revision ${list.revision}, newest index ${newest}) as ${JSON.stringify(served)}`,
        );
      const key = keys.find((one) => one.label === label && one.matcherId === id);
      if (key?.revision !== list.revision)
        missing.push(`the key of list ${label} at ${name} says ${key?.revision}, not ${list.revision}`);
    }
    const stream = `${streamPrefix}${label}`;
    const [pending] = (await redis.xpending(stream, group).catch(() => [0])) as [number];
    if (pending > 0) missing.push(`${pending} entries of list ${label} are pending`);
    const length = await redis.xlen(stream);
    if (length > 0) missing.push(`${length} entries of list ${label} are left in its stream`);
  }
  return missing;
}

/** Matchers still run: none holds a file of an index open. */
export async function judgeOpenFiles(
  fleet: Pick<Fleet, "members">,
  folders: readonly string[],
  findings: Findings,
  limitMs = goneLimitMs,
): Promise<void> {
  if (process.platform !== "linux") {
    findings.skipped.add("open files: this system does not show them");
    return;
  }
  for (const { place } of fleet.members) {
    const service = place.service();
    if (!service) continue;
    const held = async () => {
      const folder = `/proc/${service.process.pid}/fd`;
      const links = await Promise.all(
        (await readdir(folder)).map((name) => readlink(join(folder, name)).catch(() => "")),
      );
      const open = links.filter((link) => folders.some((inside) => link.startsWith(inside)));
      if (open.length > 0) throw new Error(open.join(", "));
      return true;
    };
    await eventually(`${service.name} holds no file of an index`, held, { timeoutMs: limitMs }).catch(
      (error: unknown) => findings.violation(textOf(error)),
    );
  }
}

/** All matchers and callers have ended: nothing of them is left in Redis, the storage or the scratch folder. */
export async function judgeNothingLeft(deps: {
  redis: Redis;
  storageRoot: string;
  scratchDir: string;
  findings: Findings;
}): Promise<void> {
  const { redis, findings, storageRoot, scratchDir } = deps;
  const keys = await redis.keys("matching_label__*");
  if (keys.length > 0)
    findings.violation(`I8: label keys are left by matchers that ended in order: ${keys.join(", ")}`);
  const listed = await redis.zrange("lim:labels", "0", "-1", "WITHSCORES");
  const [seconds] = await redis.time();
  for (let i = 0; i < listed.length; i += 2)
    if (Number(listed[i + 1]) > Number(seconds) * 1_000)
      findings.violation(`I8: ${listed[i]} is listed as served by a matcher that ended in order`);
  for (const stream of await redis.keys(`${streamPrefix}*`)) {
    // Of one that was killed the group keeps a consumer, and with it the stream, until a sweep.
    const consumers = (await redis.xinfo("CONSUMERS", stream, group)) as unknown[];
    const [pending] = (await redis.xpending(stream, group)) as [number];
    const length = await redis.xlen(stream);
    if (consumers.length === 0 || pending > 0 || length > 0)
      findings.violation(
        `${stream} is left with ${length} entries, ${pending} pending and ${consumers.length} consumers`,
      );
  }
  const replies = await redis.keys("lim_reply:*");
  if (replies.length > 0) findings.violation(`reply streams are left: ${replies.join(", ")}`);
  for (const name of await readdir(join(storageRoot, ".staging")))
    findings.violation(`staging folder ${name} is left`);
  for (const name of await readdir(scratchDir))
    if (name.startsWith("lim-") && !name.startsWith("lim-modules."))
      findings.violation(`scratch ${name} is left`);
}
