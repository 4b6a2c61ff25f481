/** What is used of the library: it is optional, so its own types may not be there when this is compiled. */
declare module "hnswlib-node" {
  class HierarchicalNSW {
    constructor(space: "ip", dim: number);
    initIndex(options: {
      maxElements: number;
      m?: number;
      efConstruction?: number;
      randomSeed?: number;
    }): void;
    addPoint(vector: number[], label: number): void;
    setEf(ef: number): void;
    searchKnn(vector: number[], k: number): { distances: number[]; neighbors: number[] };
    writeIndex(path: string): Promise<boolean>;
    readIndex(path: string): Promise<boolean>;
  }
  const library: { HierarchicalNSW: typeof HierarchicalNSW };
  // biome-ignore lint/style/noDefaultExport: so the library is made.
  export default library;
}
