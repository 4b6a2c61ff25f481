import { isLimError, LimError } from "@lim/contracts";
import type { ChangePacket, FacesDb, FeedGap } from "@lim/faces-db";
import type { AppliedCounts } from "@lim/vector-index";
import type { IndexHolder } from "./index-holder.ts";

export type FeedFaces = Pick<FacesDb, "readPacket">;
type Changes = Extract<ChangePacket, { kind: "changes" }>;

/** Distinct faces a packet while catching up: nobody searches that index yet, so fewer, larger steps do no harm. */
export const catchUpPacketFaces = 500;

/**
 * Applies the feed to `holder` until it is at or past `toRevision`, and tells what kept it from getting there. The
 * holder's revision moves only after a packet is applied (I5).
 */
export async function followFeed(
  db: FeedFaces,
  holder: IndexHolder,
  options: {
    toRevision: number;
    maxFaces: number;
    signal: AbortSignal;
    onPacket?: (packet: Changes, applied: AppliedCounts) => void;
  },
): Promise<FeedGap | undefined> {
  const { meta } = holder;
  while (holder.revision < options.toRevision) {
    options.signal.throwIfAborted();
    const packet = await db.readPacket({
      listId: meta.label,
      historyId: meta.history_id,
      sinceRevision: holder.revision,
      descriptorVersion: meta.descriptor_version,
      dim: meta.dim,
      maxFaces: options.maxFaces,
      signal: options.signal,
    });
    if (packet.kind === "gap") return packet.gap;
    if (packet.kind === "up_to_date") return undefined;
    // A packet that does not advance would be an endless loop.
    if (packet.toRevision <= holder.revision)
      throw new LimError("internal", `packet of ${meta.label} does not advance past ${holder.revision}`);
    const applied = await holder
      .apply({ upserts: packet.upserts, removals: packet.removals })
      .catch((thrown: unknown) => {
        // A refused change left the index as it was; a failed engine leaves it in an unknown state.
        if (isLimError(thrown, "engine_failed")) holder.fail();
        throw thrown;
      });
    holder.advance(packet.toRevision);
    options.onPacket?.(packet, applied);
  }
  return undefined;
}
