/** Hash slots of a Redis Cluster. */
export const slotCount = 16_384;

const crcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc;
});

/** The slot of a key as every Redis Cluster computes it: CRC16 of its hash tag, or of all of it. */
export function slotOf(key: string): number {
  const tag = hashTagOf(key) ?? key;
  let crc = 0;
  for (const byte of Buffer.from(tag, "utf8"))
    crc = ((crc << 8) & 0xffff) ^ (crcTable[(crc >> 8) ^ byte] as number);
  return crc % slotCount;
}

/** What stands in the first pair of braces; undefined where nothing does. */
export function hashTagOf(key: string): string | undefined {
  const open = key.indexOf("{");
  const close = key.indexOf("}", open + 1);
  return open >= 0 && close > open + 1 ? key.slice(open + 1, close) : undefined;
}
