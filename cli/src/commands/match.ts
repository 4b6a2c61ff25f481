import { LimError, limits } from "@lim/contracts";
import { type FacesDb, type ImportFault, openFacesDb } from "@lim/faces-db";
import { createSearchPlugin, type MatchAnswer, maxReferences, type Reference } from "@lim/search-plugin";
import { type Command, InvalidArgumentError, Option } from "commander";
import { listIdOf } from "../list-id.ts";
import { helpBelow, jsonOption, positive, share, uuid } from "../options.ts";
import { formatTable } from "../output.ts";
import { exitCodes, type Program, requireUrl } from "../program.ts";
import { type Probe, type ProbeFormat, probeFormats, readProbes } from "../readers/read-probes.ts";
import { print } from "./manager-command.ts";

/** Probes of one call; each is one request to a matcher. */
const probesAtOnce = Math.min(64, maxReferences);
const maxShownFaults = 20;

interface MatchOptions {
  list: string;
  face?: string[];
  descriptor?: string;
  format?: ProbeFormat;
  limit: number;
  threshold: number;
  timeout: number;
  dim: number;
  descriptorVersion: number;
  json: boolean;
}

export function addMatchCommand(root: Command, { settings, act }: Program): void {
  const match = root
    .command("match")
    .description("find the most similar faces of a list")
    .requiredOption("--list <name or id>", "the list to search")
    .option("--descriptor <file>", "by the descriptors of a file, each row a search of its own")
    .option("--face <face_id...>", "by the stored descriptor of a face, or of several", faceIds)
    .addOption(
      new Option("--format <format>", "of the file; told from its ending").choices([...probeFormats]),
    )
    .option("--limit <n>", "matches of each search at most", matchLimit, 10)
    .option("--threshold <similarity>", "least similarity, 0 to 1", share, 0)
    .option("--timeout <ms>", `deadline, at most ${limits.maxMatchTimeoutMs}`, matchTimeout, 5000)
    .option("--dim <n>", "numbers of a descriptor", positive, settings.dim)
    .option("--descriptor-version <n>", "version of the descriptors", positive, settings.descriptorVersion)
    .addOption(jsonOption("print the answers as JSON, one a line"));
  helpBelow(match, {
    more: `The file: NDJSON, CSV, .npy, .fvecs or .f32 as lim import reads them (names are not needed), .json with a
descriptor or a list of them, .txt with the numbers of one. The answer tells whether the list's index or exact
search was used, and at which revision of the list.`,
    examples: [
      "lim match --list staff --descriptor query.json --limit 5",
      "lim match --list staff --descriptor probes.npy --threshold 0.6 --json | jq .matches[0].external_id",
      "lim match --list staff --face 0b6f4bc2-5f0e-4d3a-9c59-6a54c7a0a0aa",
    ],
    environment: "REDIS_URL, DATABASE_URL, LIM_DESCRIPTOR_DIM, LIM_DESCRIPTOR_VERSION.",
  }).action((options: MatchOptions) =>
    act((signal) =>
      runMatch({
        ...options,
        redisUrl: requireUrl("REDIS_URL", settings.redisUrl),
        databaseUrl: requireUrl("DATABASE_URL", settings.databaseUrl),
        signal,
      }),
    ),
  );
}

const faceIds = (text: string, before: string[] = []) => [...before, uuid(text)];

function atMost(limit: number) {
  return (text: string) => {
    const value = positive(text);
    if (value > limit) throw new InvalidArgumentError(`must be at most ${limit}.`);
    return value;
  };
}
const matchLimit = atMost(limits.maxMatchLimit);
const matchTimeout = atMost(limits.maxMatchTimeoutMs);

interface MatchCommand extends MatchOptions {
  redisUrl: string;
  databaseUrl: string;
  signal: AbortSignal;
}

interface NamedReference {
  name: string;
  reference: Reference;
}

/** Exit code 0, or 3 where rows of the file were bad and the others searched. */
async function runMatch(command: MatchCommand): Promise<number> {
  const probes = await openProbes(command);
  const db = openFacesDb({ connectionString: command.databaseUrl, applicationName: "lim match" });
  const plugin = await createSearchPlugin({
    redis: { url: command.redisUrl },
    facesDb: { connectionString: command.databaseUrl },
    dim: command.dim,
    descriptorVersion: command.descriptorVersion,
  });
  try {
    const label = await listIdOf(db, command.list, command.signal);
    const faults: Faults = { shown: [], count: 0 };
    let searched = 0;
    for await (const batch of inBatches(probes, faults)) {
      const answers = await plugin.match({
        label,
        references: batch.map(({ reference }) => reference),
        limit: command.limit,
        threshold: command.threshold,
        timeoutMs: command.timeout,
        signal: command.signal,
      });
      await show(command, { db, label, batch, answers, isFirst: searched === 0 });
      searched += batch.length;
    }
    return verdict(command, searched, faults);
  } finally {
    await Promise.allSettled([plugin.close(), db.close()]);
  }
}

/** Bad rows of a file, which may be as many as it has. */
interface Faults {
  /** The first of them. */
  shown: ImportFault[];
  count: number;
}

function verdict({ descriptor }: MatchCommand, searched: number, { shown, count }: Faults): number {
  for (const { line, reason } of shown) console.error(`  row ${line} of ${descriptor}: ${reason}`);
  if (count > shown.length) console.error(`  … and ${count - shown.length} more bad rows`);
  if (searched > 0) return count > 0 ? exitCodes.inPart : exitCodes.done;
  throw new LimError("bad_input", `${descriptor} holds no descriptor that can be searched for`);
}

async function openProbes(command: MatchCommand): Promise<AsyncIterable<NamedReference | ImportFault>> {
  const { face, descriptor, format, dim, signal } = command;
  if ((face === undefined) === (descriptor === undefined))
    throw new LimError("bad_input", "give either --face <face_id> or --descriptor <file>");
  if (descriptor !== undefined)
    return asReferences(await readProbes({ path: descriptor, format, dim, signal }));
  return (async function* () {
    for (const faceId of face ?? []) yield { name: faceId, reference: { faceId } };
  })();
}

async function* asReferences(
  probes: AsyncIterable<Probe | ImportFault>,
): AsyncGenerator<NamedReference | ImportFault> {
  for await (const probe of probes)
    yield "reason" in probe ? probe : { name: probe.name, reference: { descriptor: probe.vector } };
}

/** Bad rows are noted in `faults`; no more than a batch is held. */
async function* inBatches(
  probes: AsyncIterable<NamedReference | ImportFault>,
  faults: Faults,
): AsyncGenerator<NamedReference[]> {
  let batch: NamedReference[] = [];
  for await (const probe of probes) {
    if ("reason" in probe) {
      if (faults.count++ < maxShownFaults) faults.shown.push(probe);
      continue;
    }
    batch.push(probe);
    if (batch.length < probesAtOnce) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

interface Answered {
  db: FacesDb;
  label: string;
  batch: readonly NamedReference[];
  answers: readonly MatchAnswer[];
  isFirst: boolean;
}

async function show(command: MatchCommand, { db, label, batch, answers, isFirst }: Answered): Promise<void> {
  const found = [...new Set(answers.flatMap(({ matches }) => matches.map(([faceId]) => faceId)))];
  const names =
    found.length === 0
      ? new Map<string, string>()
      : await db.externalIdsOf({ faceIds: found, signal: command.signal });
  if (command.json) {
    for (const [i, answer] of answers.entries()) {
      const matches = answer.matches.map(([face_id, similarity]) => ({
        face_id,
        similarity,
        external_id: names.get(face_id) ?? null,
      }));
      print(command, { probe: batch[i]?.name, ...answer, label, matches }, () => "");
    }
    return;
  }
  const isAlone = isFirst && answers.length === 1;
  const rows = answers.flatMap(({ matches }, i) => rowsOf(batch[i]?.name ?? "", matches, names));
  const titles = ["probe", "#", "similarity", "face", "external id"];
  console.log(
    isAlone
      ? formatTable(
          titles.slice(1),
          rows.map((row) => row.slice(1)),
        )
      : formatTable(titles, rows),
  );
  for (const line of howFound(answers)) console.log(line);
}

function rowsOf(
  name: string,
  matches: MatchAnswer["matches"],
  names: ReadonlyMap<string, string>,
): string[][] {
  if (matches.length === 0) return [[name, "–", "no match", "", ""]];
  return matches.map(([faceId, similarity], rank) => [
    name,
    String(rank + 1),
    similarity.toFixed(4),
    faceId,
    names.get(faceId) ?? "",
  ]);
}

/** Path, index and revision: one line for all answers that share them. */
function howFound(answers: readonly MatchAnswer[]): string[] {
  const groups = new Map<string, number[]>();
  for (const { path, indexId, revision, timings } of answers) {
    const how = `${path === "index" ? `index ${indexId}` : "exact search"}, revision ${revision}`;
    groups.set(how, [...(groups.get(how) ?? []), timings.totalMs]);
  }
  return [...groups].map(([how, times]) => {
    const longest = Math.max(...times).toFixed(1);
    return times.length === 1
      ? `${how}, ${longest} ms`
      : `${how}: ${times.length} searches, each within ${longest} ms`;
  });
}
