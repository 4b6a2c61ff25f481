import { limits, uuidBytes } from "@lim/contracts";
import { to as copyTo } from "pg-copy-streams";
import { CopyBinaryParser, type CopyRow } from "./copy-binary.ts";
import type { Database, Lease } from "./database.ts";
import { maxDescriptorVersion } from "./faces.ts";
import { facesDbLimits } from "./limits.ts";
import { checkInteger, checkUuid, readListState } from "./lists.ts";
import type { Cancellable, DescriptorBatch, ListSnapshot } from "./port.ts";
import { noneSkipped, usableVector } from "./vectors.ts";

export interface SnapshotOptions extends Cancellable {
  listId: string;
  descriptorVersion: number;
  dim: number;
  batchRows?: number;
}

/** Collects usable rows into one batch. */
class BatchBuilder {
  readonly #dim: number;
  readonly #batchRows: number;
  readonly #skipped = noneSkipped();
  #count = 0;
  #faceIds: Uint8Array;
  #vectors: Float32Array;

  constructor(dim: number, batchRows: number) {
    this.#dim = dim;
    this.#batchRows = batchRows;
    this.#faceIds = new Uint8Array(batchRows * uuidBytes);
    this.#vectors = new Float32Array(batchRows * dim);
  }

  get skipped() {
    return this.#skipped;
  }

  /** The batch, once it is full with this row. */
  add([faceId, data]: CopyRow): DescriptorBatch | undefined {
    const vector = usableVector(data ?? null, this.#dim, this.#skipped);
    if (!faceId || vector === undefined) return undefined;
    this.#faceIds.set(faceId, this.#count * uuidBytes);
    this.#vectors.set(vector, this.#count * this.#dim);
    this.#count++;
    return this.#count === this.#batchRows ? this.take() : undefined;
  }

  /** What there is; the consumer owns it. */
  take(): DescriptorBatch | undefined {
    const count = this.#count;
    if (count === 0) return undefined;
    const batch = {
      count,
      faceIds: this.#faceIds.subarray(0, count * uuidBytes),
      vectors: this.#vectors.subarray(0, count * this.#dim),
    };
    this.#count = 0;
    this.#faceIds = new Uint8Array(this.#batchRows * uuidBytes);
    this.#vectors = new Float32Array(this.#batchRows * this.#dim);
    return batch;
  }
}

/** COPY takes no parameters: the ids were checked to be a UUID and an integer. A wrong length comes as NULL, unread. */
function copyStatement(listId: string, descriptorVersion: number, dim: number): string {
  return `COPY (
    SELECT lf.face_id, CASE WHEN octet_length(d.data) = ${dim * 4} THEN d.data END
    FROM faces.list_face lf
    JOIN faces.descriptor d ON d.face_id = lf.face_id AND d.descriptor_version = ${descriptorVersion}
    WHERE lf.list_id = '${listId}'
  ) TO STDOUT (FORMAT binary)`;
}

export async function openSnapshot(database: Database, options: SnapshotOptions): Promise<ListSnapshot> {
  const listId = checkUuid(options.listId, "list id");
  const version = checkInteger(options.descriptorVersion, "descriptor version", 0, maxDescriptorVersion);
  const dim = checkInteger(options.dim, "dim", limits.minDim, limits.maxDim);
  const batchRows = checkInteger(
    options.batchRows ?? facesDbLimits.snapshotBatchRows,
    "batchRows",
    1,
    facesDbLimits.maxSnapshotBatchRows,
  );
  const { signal } = options;
  const lease = await database.lease(signal);
  try {
    await lease.client.query("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    const state = await readListState(lease.client, listId);
    const builder = new BatchBuilder(dim, batchRows);
    const reader = { database, lease, builder, signal, started: false, ended: false };
    const statement = copyStatement(listId, version, dim);
    return {
      listId,
      historyId: state.historyId,
      revision: state.revision,
      faceCount: state.faceCount,
      removedTotal: state.removedTotal,
      batches: { [Symbol.asyncIterator]: () => readBatches(reader, statement, dim) },
      skipped: builder.skipped,
      close: () => closeReader(reader),
    };
  } catch (thrown) {
    lease.destroy();
    throw database.error(thrown, signal);
  }
}

interface Reader {
  database: Database;
  lease: Lease;
  builder: BatchBuilder;
  signal: AbortSignal | undefined;
  started: boolean;
  ended: boolean;
}

/** Before the copy the connection goes back; in its midst only closing it ends the copy. */
async function closeReader(reader: Reader): Promise<void> {
  if (reader.ended) return;
  reader.ended = true;
  if (reader.started) return reader.lease.destroy();
  reader.started = true;
  await endTransaction(reader);
}

async function endTransaction(reader: Reader): Promise<void> {
  try {
    await reader.lease.client.query("COMMIT");
    reader.lease.giveBack();
  } catch (thrown) {
    reader.lease.destroy();
    throw reader.database.error(thrown, reader.signal);
  }
}

async function* readBatches(reader: Reader, statement: string, dim: number): AsyncGenerator<DescriptorBatch> {
  if (reader.started) throw reader.database.error(new Error("a snapshot's batches can be read once"));
  reader.started = true;
  try {
    const parser = new CopyBinaryParser({ columns: 2, maxFieldBytes: Math.max(dim * 4, uuidBytes) });
    const stream = reader.lease.client.query(copyTo(statement));
    // The copy ends with its connection: a dead socket gives the stream neither an end nor an error by itself.
    const onEnd = () => stream.destroy(new Error("Connection terminated during a snapshot"));
    reader.lease.client.once("end", onEnd);
    try {
      for await (const chunk of stream) {
        for (const row of parser.push(chunk as Buffer)) {
          const batch = reader.builder.add(row);
          if (batch !== undefined) yield batch;
        }
      }
    } finally {
      reader.lease.client.removeListener("end", onEnd);
    }
    parser.end();
    reader.ended = true;
    await endTransaction(reader);
    const last = reader.builder.take();
    if (last !== undefined) yield last;
  } catch (thrown) {
    throw reader.database.error(thrown, reader.signal);
  } finally {
    if (!reader.ended) {
      reader.ended = true;
      reader.lease.destroy();
    }
  }
}
