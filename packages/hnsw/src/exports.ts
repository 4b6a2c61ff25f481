/** What an instance of the engine exports; one instance for each thread and index. Addresses are valid after `attach`. */
export interface EngineExports {
  readonly queriesAt: WebAssembly.Global<number>;
  readonly outKeysAt: WebAssembly.Global<number>;
  readonly outScoresAt: WebAssembly.Global<number>;
  readonly filterAt: WebAssembly.Global<number>;
  readonly rowScratchAt: WebAssembly.Global<number>;
  /** What the last walk of the graph found where nothing was left before it had `ef`; else more than any index holds. */
  readonly reached: WebAssembly.Global<number>;
  attach(block: number, thread: number): void;
  levelOf(slot: number): number;
  insert(slot: number, row: number, slots: number): void;
  search(
    index: number,
    k: number,
    ef: number,
    depth: number,
    slots: number,
    version: number,
    filtered: boolean,
  ): number;
  scan(index: number, k: number, depth: number, slots: number, version: number, filtered: boolean): number;
  scanRows(index: number, k: number, slots: number, version: number, filtered: boolean): number;
  collect(
    index: number,
    k: number,
    ef: number,
    depth: number,
    slots: number,
    version: number,
    filtered: boolean,
    exact: boolean,
  ): number;
  candidate(i: number): number;
  rescore(i: number, index: number): void;
  finish(n: number, k: number): number;
  sweepRange(from: number, to: number, version: number, slots: number): number;
  mendEntry(version: number, slots: number): void;
  /** Links slots anew that no link leads to; returns how many. Not beside insertions or a sweep. */
  mendOrphans(slots: number): number;
}
