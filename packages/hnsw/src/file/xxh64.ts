const prime1 = 0x9e3779b185ebca87n;
const prime2 = 0xc2b2ae3d27d4eb4fn;
const prime3 = 0x165667b19e3779f9n;
const prime4 = 0x85ebca77c2b2ae63n;
const prime5 = 0x27d4eb2f165667c5n;

const low = (value: bigint): bigint => BigInt.asUintN(64, value);
const rotate = (value: bigint, by: bigint): bigint => low(value << by) | (value >> (64n - by));
const round = (lane: bigint, input: bigint): bigint => low(rotate(low(lane + input * prime2), 31n) * prime1);

/**
 * XXH64 of a few bytes, for headers: those are read before there is a memory to hash in. Sections are hashed by
 * assembly/checksum.ts, thousands of times as fast.
 */
export function xxh64(bytes: Uint8Array, seed = 0n): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { length } = bytes;
  let at = 0;
  let hash = low(seed + prime5);
  if (length >= 32) {
    const lanes = [low(seed + prime1 + prime2), low(seed + prime2), seed, low(seed - prime1)];
    for (; at + 32 <= length; at += 32)
      for (const [i, lane] of lanes.entries()) lanes[i] = round(lane, view.getBigUint64(at + 8 * i, true));
    const turns = [1n, 7n, 12n, 18n];
    hash = low(lanes.reduce((sum, lane, i) => sum + rotate(lane, turns[i] ?? 0n), 0n));
    for (const lane of lanes) hash = low((hash ^ round(0n, lane)) * prime1 + prime4);
  }
  hash = low(hash + BigInt(length));
  for (; at + 8 <= length; at += 8)
    hash = low(rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * prime1 + prime4);
  if (at + 4 <= length) {
    hash = low(rotate(hash ^ low(BigInt(view.getUint32(at, true)) * prime1), 23n) * prime2 + prime3);
    at += 4;
  }
  for (; at < length; at++) hash = low(rotate(hash ^ low(BigInt(view.getUint8(at)) * prime5), 11n) * prime1);
  hash = low((hash ^ (hash >> 33n)) * prime2);
  hash = low((hash ^ (hash >> 29n)) * prime3);
  return hash ^ (hash >> 32n);
}
