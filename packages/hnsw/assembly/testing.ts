// The engine with its kernels within reach of the tests: compiled by them alone, so that the shipped module stays small.
import { walkDistance, distanceIn, fineDistance, keyFrom } from "./kernels";

export * from "./index";
export { normaliseRow, quantise } from "./insert";
export { walkFour, walkMargin, dotFloat32, narrowRow, squaredFloat32, useQuery, useSlot, widenRow } from "./kernels";
export { batchAt, distancesAt, other8At, query8At } from "./state";

export function walkTo(slot: u32, query: usize): f32 {
  return walkDistance(slot, query);
}
export function fineTo(slot: u32, query: usize): f32 {
  return fineDistance(slot, query);
}
export function orderedBits(distance: f32): u32 {
  return <u32>(keyFrom(distance, 0) >> 32);
}
export function throughKey(distance: f32, slot: u32): f32 {
  return distanceIn(keyFrom(distance, slot));
}
export function slotThroughKey(distance: f32, slot: u32): u32 {
  return <u32>keyFrom(distance, slot);
}
