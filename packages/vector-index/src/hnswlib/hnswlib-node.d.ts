/** What is used of the library: it is optional, so its own types may not be there when this is compiled. */
declare module "hnswlib-node" {
  export interface HierarchicalNSW {
    initIndex(
      capacity: number,
      m?: number,
      efConstruction?: number,
      seed?: number,
      allowReplace?: boolean,
    ): void;
    readIndexSync(path: string, allowReplace: boolean): boolean;
    writeIndexSync(path: string): boolean;
    resizeIndex(capacity: number): void;
    addPoint(vector: number[], label: number): void;
    getPoint(label: number): number[];
    markDelete(label: number): void;
    setEf(ef: number): void;
    searchKnn(vector: number[], k: number): { distances: number[]; neighbors: number[] };
    getCurrentCount(): number;
    getMaxElements(): number;
    getNumDimensions(): number;
  }
  const library: { HierarchicalNSW: new (space: "ip", dim: number) => HierarchicalNSW };
  // biome-ignore lint/style/noDefaultExport: so the library is made.
  export default library;
}
