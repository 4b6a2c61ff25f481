import { isLimError, LimError } from "@lim/contracts";
import type { ChangePackets, FaceChanges, FacesDb, FeedGap } from "@lim/faces-db";
import type { AppliedCounts } from "@lim/vector-index";
import type { IndexHolder } from "./index-holder.ts";

export type FeedFaces = Pick<FacesDb, "readPackets">;

/** Distinct faces a packet while catching up: nobody searches that index yet, so fewer, larger steps do no harm. */
export const catchUpPacketFaces = 500;
/** Distinct faces that one query reads. While they are applied the next ones are read, so twice as many are held. */
const readFaces = 200;

/**
 * Applies the feed to `holder` in packets of at most `maxFaces` until it is at `toRevision`, and tells what kept it from
 * getting there. The holder's revision moves only after a packet is applied (I5).
 */
export async function followFeed(
  db: FeedFaces,
  holder: IndexHolder,
  options: {
    toRevision: number;
    maxFaces: number;
    signal: AbortSignal;
    /** Nothing is applied before it has settled; reading begins at once. */
    applyAfter?: Promise<unknown>;
    onPacket?: (packet: FaceChanges, applied: AppliedCounts) => void;
  },
): Promise<FeedGap | undefined> {
  const { toRevision, signal } = options;
  const stop = new AbortController();
  const read = readerOf(db, holder, { ...options, signal: AbortSignal.any([signal, stop.signal]) });
  let ahead = holder.revision < toRevision ? read(holder.revision) : undefined;
  try {
    while (ahead) {
      signal.throwIfAborted();
      const { end, packets } = await ahead;
      const lastRevision = packets.at(-1)?.toRevision ?? holder.revision;
      ahead = !end && lastRevision < toRevision ? read(lastRevision) : undefined;
      // Heard when its turn comes; until then nobody may call it unhandled.
      ahead?.catch(() => {});
      await options.applyAfter;
      signal.throwIfAborted();
      await applyPackets(holder, packets, options);
      if (end) return end.gap;
    }
    return undefined;
  } finally {
    stop.abort();
    await ahead?.catch(() => {});
  }
}

interface Read {
  packets: readonly FaceChanges[];
  /** There is nothing to read after them now, or ever. */
  end?: { gap: FeedGap | undefined };
}

function readerOf(
  db: FeedFaces,
  { meta }: IndexHolder,
  options: { toRevision: number; maxFaces: number; signal: AbortSignal },
): (sinceRevision: number) => Promise<Read> {
  const { toRevision, maxFaces, signal } = options;
  return async (sinceRevision) => {
    const read: ChangePackets = await db.readPackets({
      listId: meta.label,
      historyId: meta.history_id,
      sinceRevision,
      toRevision,
      descriptorVersion: meta.descriptor_version,
      dim: meta.dim,
      maxFaces: Math.max(maxFaces, readFaces),
      packetFaces: maxFaces,
      signal,
    });
    if (read.kind === "gap") return { packets: [], end: { gap: read.gap } };
    if (read.kind === "up_to_date") return { packets: [], end: { gap: undefined } };
    let revision = sinceRevision;
    for (const packet of read.packets) {
      // Packets that do not advance would be an endless loop.
      if (packet.toRevision <= revision)
        throw new LimError("internal", `packet of ${meta.label} does not advance past ${revision}`);
      revision = packet.toRevision;
    }
    return { packets: read.packets };
  };
}

/** Each packet is a step of its own; no face is in two packets of one read. */
async function applyPackets(
  holder: IndexHolder,
  packets: readonly FaceChanges[],
  options: { signal: AbortSignal; onPacket?: (packet: FaceChanges, applied: AppliedCounts) => void },
): Promise<void> {
  try {
    await holder.applyInSteps(packets, {
      signal: options.signal,
      onApplied: (number, applied) => {
        const packet = packets[number] as FaceChanges;
        holder.advance(packet.toRevision);
        options.onPacket?.(packet, applied);
      },
    });
  } catch (thrown) {
    // A refused change left the index as it was; a failed engine leaves it in an unknown state.
    if (isLimError(thrown, "engine_failed")) holder.fail();
    throw thrown;
  }
}
