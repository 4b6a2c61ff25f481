import { limits, uuidBytes } from "@lim/contracts";
import { CopyBinaryParser, type CopySink } from "./copy-binary.ts";
import { CopyOut } from "./copy-out.ts";
import type { Database, Lease } from "./database.ts";
import { maxDescriptorVersion } from "./faces.ts";
import { facesDbLimits } from "./limits.ts";
import { checkInteger, checkUuid, readListState } from "./lists.ts";
import { Pace } from "./pace.ts";
import type { Cancellable, DescriptorBatch, ListSnapshot, SnapshotPace } from "./port.ts";
import { isUsable, noneSkipped } from "./vectors.ts";

export interface SnapshotOptions extends Cancellable {
  listId: string;
  descriptorVersion: number;
  dim: number;
  batchRows?: number;
  pace?: SnapshotPace | undefined;
}

/** Collects usable rows into batches, each in arrays of its own, which the consumer owns. */
class BatchBuilder implements CopySink {
  readonly skipped = noneSkipped();
  fieldAt = 0;
  readonly #dim: number;
  readonly #batchRows: number;
  readonly #full: DescriptorBatch[] = [];
  #count = 0;
  #hasId = false;
  #hasVector = false;
  #faceIds: Uint8Array;
  #vectors: Float32Array;
  #vectorBytes: Uint8Array;

  constructor(dim: number, batchRows: number) {
    this.#dim = dim;
    this.#batchRows = batchRows;
    this.#faceIds = new Uint8Array(batchRows * uuidBytes);
    this.#vectors = new Float32Array(batchRows * dim);
    this.#vectorBytes = new Uint8Array(this.#vectors.buffer);
  }

  field(column: number, length: number): Uint8Array | undefined {
    if (column === 0) {
      this.#hasId = length === uuidBytes;
      this.fieldAt = this.#count * uuidBytes;
      return this.#hasId ? this.#faceIds : undefined;
    }
    const bytes = this.#dim * Float32Array.BYTES_PER_ELEMENT;
    this.#hasVector = length === bytes;
    this.fieldAt = this.#count * bytes;
    return this.#hasVector ? this.#vectorBytes : undefined;
  }

  row(): void {
    if (!this.#hasVector) this.skipped.wrong_length++;
    else if (this.#hasId && isUsable(this.#vectors, this.#count * this.#dim, this.#dim, this.skipped))
      this.#count++;
    if (this.#count < this.#batchRows) return;
    this.end();
    this.#faceIds = new Uint8Array(this.#batchRows * uuidBytes);
    this.#vectors = new Float32Array(this.#batchRows * this.#dim);
    this.#vectorBytes = new Uint8Array(this.#vectors.buffer);
  }

  get hasFull(): boolean {
    return this.#full.length > 0;
  }

  /** The oldest batch that is full. */
  take(): DescriptorBatch | undefined {
    return this.#full.shift();
  }

  /** What there is counts as full. No row may follow. */
  end(): void {
    const count = this.#count;
    this.#count = 0;
    if (count === 0) return;
    this.#full.push({
      count,
      faceIds: this.#faceIds.subarray(0, count * uuidBytes),
      vectors: this.#vectors.subarray(0, count * this.#dim),
    });
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
    const reader: Reader = {
      database,
      lease,
      builder,
      statement: copyStatement(listId, version, dim),
      dim,
      pace: options.pace && new Pace(options.pace),
      signal,
      started: false,
      ended: false,
    };
    return {
      listId,
      historyId: state.historyId,
      revision: state.revision,
      faceCount: state.faceCount,
      removedTotal: state.removedTotal,
      batches: { [Symbol.asyncIterator]: () => readBatches(reader) },
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
  statement: string;
  dim: number;
  pace: Pace | undefined;
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

async function* readBatches(reader: Reader): AsyncGenerator<DescriptorBatch> {
  const { database, lease, builder, signal, pace } = reader;
  if (reader.started) throw database.error(new Error("a snapshot's batches can be read once"));
  reader.started = true;
  try {
    const maxFieldBytes = Math.max(reader.dim * Float32Array.BYTES_PER_ELEMENT, uuidBytes);
    const parser = new CopyBinaryParser({ columns: 2, maxFieldBytes, sink: builder });
    let wake = () => {};
    const copy: CopyOut = new CopyOut(reader.statement, {
      onContent: (chunk, from, to) => parser.push(chunk, from, to),
      onChunk(bytes) {
        if (builder.hasFull) {
          copy.pause();
          wake();
        }
        return pace?.waitMs(bytes) ?? 0;
      },
    });
    lease.client.query(copy);
    for (let ended = false; !ended; ) {
      const full = new Promise<void>((resolve) => {
        wake = resolve;
      });
      copy.resume();
      ended = await Promise.race([copy.ended.then(() => true), full.then(() => false)]);
      for (let batch = builder.take(); batch; batch = builder.take()) yield batch;
    }
    parser.end();
    reader.ended = true;
    await endTransaction(reader);
    builder.end();
    const last = builder.take();
    if (last !== undefined) yield last;
  } catch (thrown) {
    throw database.error(thrown, signal);
  } finally {
    if (!reader.ended) {
      reader.ended = true;
      lease.destroy();
    }
  }
}
