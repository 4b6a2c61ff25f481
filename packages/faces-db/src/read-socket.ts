import net from "node:net";

const bufferBytes = 128 * 1024;

/**
 * A socket that reads into one buffer over and over, instead of one of 64 KiB for each piece that comes: taking and giving
 * back that memory costs a snapshot as much as reading does.
 */
export class ReadSocket extends net.Socket {
  /** Gets what comes instead of the listeners of `data`. The bytes are valid during the call. */
  onBytes: ((bytes: Buffer) => void) | undefined;

  constructor() {
    let take: (bytes: Buffer) => void = () => {};
    const buffer = Buffer.allocUnsafeSlow(bufferBytes);
    super({
      onread: {
        buffer,
        callback(count) {
          take(buffer.subarray(0, count));
          return true;
        },
      },
    } as net.SocketConstructorOpts);
    take = (bytes) => {
      if (this.onBytes) this.onBytes(bytes);
      else this.emit("data", Buffer.from(bytes));
    };
  }
}
