import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import { decodeVector, LimError, uuidSchema } from "@lim/contracts";
import { openFacesDb } from "@lim/faces-db";
import { createSearchPlugin, type Reference } from "@lim/search-plugin";
import { listIdOf } from "../list-id.ts";
import { formatTable } from "../output.ts";
import { parseVector } from "../readers/row-fields.ts";

export interface MatchCommand {
  /** List id or name. */
  list: string;
  face?: string | undefined;
  descriptorFile?: string | undefined;
  limit: number;
  threshold: number;
  timeoutMs: number;
  redisUrl: string;
  databaseUrl: string;
  dim: number;
  descriptorVersion: number;
  json: boolean;
  signal: AbortSignal;
}

export async function runMatch(command: MatchCommand): Promise<number> {
  const reference = await readReference(command);
  const db = openFacesDb({ connectionString: command.databaseUrl, applicationName: "lim match" });
  const plugin = await createSearchPlugin({
    redis: { url: command.redisUrl },
    facesDb: { connectionString: command.databaseUrl },
    dim: command.dim,
    descriptorVersion: command.descriptorVersion,
  });
  try {
    const label = await listIdOf(db, command.list, command.signal);
    const [answer] = await plugin.match({
      label,
      references: [reference],
      limit: command.limit,
      threshold: command.threshold,
      timeoutMs: command.timeoutMs,
      signal: command.signal,
    });
    if (answer === undefined) throw new LimError("internal", "the plugin gave no answer");
    const faceIds = answer.matches.map(([faceId]) => faceId);
    const names = await db.externalIdsOf({ faceIds, signal: command.signal });
    if (command.json) {
      const matches = answer.matches.map(([face_id, similarity]) => ({
        face_id,
        similarity,
        external_id: names.get(face_id) ?? null,
      }));
      console.log(JSON.stringify({ ...answer, label, matches }));
      return 0;
    }
    const rows = answer.matches.map(([faceId, similarity], rank) => [
      String(rank + 1),
      similarity.toFixed(4),
      faceId,
      names.get(faceId) ?? "",
    ]);
    console.log(formatTable(["#", "similarity", "face", "external id"], rows));
    const how = answer.path === "index" ? `index ${answer.indexId}` : "exact search";
    console.log(`${how}, revision ${answer.revision}, ${answer.timings.totalMs.toFixed(1)} ms`);
    return 0;
  } finally {
    await Promise.allSettled([plugin.close(), db.close()]);
  }
}

async function readReference(command: MatchCommand): Promise<Reference> {
  if ((command.face === undefined) === (command.descriptorFile === undefined))
    throw new LimError("bad_input", "give either --face <face_id> or --descriptor <file>");
  if (command.face !== undefined) {
    const parsed = uuidSchema.safeParse(command.face);
    if (!parsed.success) throw new LimError("bad_input", `--face "${command.face}" is not a UUID`);
    return { faceId: parsed.data };
  }
  const path = command.descriptorFile ?? "";
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new LimError("bad_input", `cannot read ${path}`, { cause });
  });
  const vector =
    extname(path).toLowerCase() === ".f32" ? firstRow(bytes, command.dim) : parseVector(parseText(bytes));
  if (typeof vector === "string") throw new LimError("bad_input", `${path}: ${vector}`);
  return { descriptor: vector };
}

function firstRow(bytes: Buffer, dim: number): Float32Array | string {
  if (bytes.length < dim * 4) return `${bytes.length} bytes are too few for ${dim} numbers of float32`;
  return decodeVector(bytes.subarray(0, dim * 4));
}

/** JSON (an array, or an object with `descriptor`) or plain text. */
function parseText(bytes: Buffer): unknown {
  const text = bytes.toString("utf8").trim();
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === "object" && json !== null && "descriptor" in json) return json.descriptor;
    return json;
  } catch {
    return text;
  }
}
