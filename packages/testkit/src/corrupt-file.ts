import { open } from "node:fs/promises";

export type Corruption =
  /** Inverts every bit of one byte; counted from the end where negative. */
  | { flipByteAt: number }
  | { truncateTo: number }
  | { append: Uint8Array }
  /** Overwrites with zeros, as a lost disk block reads. */
  | { zeroFrom: number; bytes: number };

/** Damages a file in place; rejects where the damage would lie outside the file, and so would be none. */
export async function corruptFile(path: string, corruption: Corruption): Promise<void> {
  const file = await open(path, "r+");
  try {
    const { size } = await file.stat();
    const within = (position: number) => {
      if (!(position >= 0 && position < size))
        throw new RangeError(`${path} has ${size} bytes, not ${position}`);
      return position;
    };
    if ("flipByteAt" in corruption) {
      const at = within(corruption.flipByteAt < 0 ? size + corruption.flipByteAt : corruption.flipByteAt);
      const byte = new Uint8Array(1);
      await file.read(byte, 0, 1, at);
      await file.write(Uint8Array.of((byte[0] ?? 0) ^ 0xff), 0, 1, at);
    } else if ("truncateTo" in corruption) {
      await file.truncate(within(corruption.truncateTo));
    } else if ("append" in corruption) {
      await file.write(corruption.append, 0, corruption.append.length, size);
    } else {
      within(corruption.zeroFrom + corruption.bytes - 1);
      await file.write(new Uint8Array(corruption.bytes), 0, corruption.bytes, within(corruption.zeroFrom));
    }
  } finally {
    await file.close();
  }
}
