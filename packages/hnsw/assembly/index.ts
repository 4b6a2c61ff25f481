import { attach as attachState } from "./state";
import { resetVisits } from "./visits";

export { filterAt, levelOf, outKeysAt, outScoresAt, queriesAt, rowScratchAt } from "./state";
export { insert } from "./insert";
export { candidate, collect, finish, reached, rescore, scan, scanRows, search } from "./search";
export { mendEntry, mendOrphans, sweepRange } from "./sweep";
export { distances } from "./walk";

/** Makes this instance work on the index whose control block is at `block`, as thread number `thread`. */
export function attach(block: usize, thread: u32): void {
  attachState(block, thread);
  resetVisits();
}
export { checksum } from "./checksum";
export {
  faultSlot, gather, gatherLinks, highestMarked, isFiniteRow, isMarked, markKeyed, markVisible, narrowRows, scatterLinks,
  settle, validate,
} from "./validate";

