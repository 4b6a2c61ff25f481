import type { IndexStorage } from "./port.ts";

export * from "./port.ts";

/** Opens (and creates where missing) a storage root on a local or shared file system. */
export declare function openIndexStorage(options: {
  root: string;
  /** Folder for private copies while opening; default: the system's temporary folder. */
  scratchDir?: string;
}): Promise<IndexStorage>;
export declare function newestOf(
  ...args: Parameters<import("./port.ts").NewestOf>
): ReturnType<import("./port.ts").NewestOf>;
