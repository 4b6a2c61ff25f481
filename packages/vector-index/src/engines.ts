import { type EngineName, engineNames } from "@lim/contracts";
import { defaultRerank, type EngineAdapter, type EngineOptions, type RerankKind } from "./port.ts";

const loaded = new Map<string, Promise<EngineAdapter>>();

let spareOfLoaded = (): number => 0;

async function load(name: EngineName, rerank: RerankKind): Promise<EngineAdapter> {
  switch (name) {
    case "hnswlib": {
      const { loadHnswlib } = await import("./hnswlib/adapter.ts");
      return loadHnswlib();
    }
    case "hnsw": {
      const { loadHnsw, spareBytes } = await import("./hnsw/adapter.ts");
      spareOfLoaded = spareBytes;
      return loadHnsw(rerank);
    }
  }
}

/**
 * Loads an engine on first use, so that who never builds or serves an index needs none, and who uses one needs no
 * other: `hnswlib` is a native module that may not be installed.
 */
export function loadEngine(name: EngineName, options: EngineOptions = {}): Promise<EngineAdapter> {
  const { rerank = defaultRerank } = options;
  const key = `${name} ${rerank}`;
  const known = loaded.get(key);
  if (known) return known;
  const loading = load(name, rerank);
  loaded.set(key, loading);
  // A failure (not installed, not built) may be remedied without a restart: it is not kept.
  loading.catch(() => loaded.delete(key));
  return loading;
}

/** Resident bytes of this process that engines keep of closed indexes for the next ones. */
export const spareEngineBytes = (): number => spareOfLoaded();

/** Engines that load on this machine. */
export async function availableEngines(): Promise<EngineName[]> {
  const loads = await Promise.allSettled(engineNames.map((name) => loadEngine(name)));
  return engineNames.filter((_, i) => loads[i]?.status === "fulfilled");
}
