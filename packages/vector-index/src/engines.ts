import type { EngineName } from "@lim/contracts";
import type { EngineAdapter } from "./port.ts";

const loaded = new Map<EngineName, Promise<EngineAdapter>>();

async function load(name: EngineName): Promise<EngineAdapter> {
  switch (name) {
    case "hnswlib": {
      const { loadHnswlib } = await import("./hnswlib/adapter.ts");
      return loadHnswlib();
    }
  }
}

/** Loads an engine on first use, so that who never builds or serves an index needs no native module. */
export function loadEngine(name: EngineName): Promise<EngineAdapter> {
  const known = loaded.get(name);
  if (known) return known;
  const loading = load(name);
  loaded.set(name, loading);
  // A failure (not installed, not built) may be remedied without a restart: it is not kept.
  loading.catch(() => loaded.delete(name));
  return loading;
}
