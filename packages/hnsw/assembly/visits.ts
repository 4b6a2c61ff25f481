// Which slots the present walk has met: a mark a slot and thread. Marks are numbered, so that a new walk clears nothing.
import { segmentBits, segmentBytes, visitedAt, visitedOf } from "./state";

let mark: u16 = 0;
let segmentsSeen: u32 = 0;

/** Starts a new set of visited slots; `slots` = those in use. */
export function beginVisit(slots: u32): void {
  if (++mark == 0) {
    for (let s: u32 = 0; s < segmentsSeen; s++) clearSegment(s);
    mark = 1;
  }
  const segments = (slots + (1 << segmentBits) - 1) >> segmentBits;
  for (; segmentsSeen < segments; segmentsSeen++) clearSegment(segmentsSeen);
}

function clearSegment(segment: u32): void {
  memory.fill(visitedAt + <usize>segment * segmentBytes, 0, 2 << segmentBits);
}

/** Forgets everything: the memory may hold another index now. */
export function resetVisits(): void {
  mark = 0;
  segmentsSeen = 0;
}

/** The mark of this walk: `load<u16>(visitedOf(slot)) == currentMark()` = visited. For loops that keep it in a local. */
@inline export function currentMark(): u16 {
  return mark;
}

/** Marks a slot; false when it was marked already. */
@inline export function visit(slot: u32): bool {
  const at = visitedOf(slot);
  if (load<u16>(at) == mark) return false;
  store<u16>(at, mark);
  return true;
}

@inline export function wasVisited(slot: u32): bool {
  return load<u16>(visitedOf(slot)) == mark;
}
