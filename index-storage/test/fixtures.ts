import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EngineName } from "@lim/contracts";
import { type EngineAdapter, type KeyedIndex, loadEngine } from "@lim/vector-index";
import { onTestFinished } from "vitest";
import { type IndexStorage, openIndexStorage } from "../src/index.ts";
import { contentOf } from "./content.ts";

export * from "./content.ts";

export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "lim-storage-test-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A storage whose engine loads are counted. */
export async function openCounted(
  root: string,
  options: Partial<Parameters<typeof openIndexStorage>[0]> = {},
): Promise<{ storage: IndexStorage; loads: () => number; scratch: string }> {
  const scratch = join(root, ".scratch");
  mkdirSync(scratch, { recursive: true });
  let loads = 0;
  const spied = async (name: EngineName): Promise<EngineAdapter> => {
    const adapter = await loadEngine(name);
    const load: EngineAdapter["load"] = (request) => {
      loads++;
      return adapter.load(request);
    };
    return Object.create(adapter, { load: { value: load } });
  };
  const storage = await openIndexStorage({
    root,
    scratchDir: scratch,
    loadAdapter: spied,
    ...options,
  });
  return { storage, loads: () => loads, scratch };
}

export async function publish(
  storage: IndexStorage,
  keyed: KeyedIndex,
  names: { label: string; indexId: string; revision?: number; attempt?: number },
) {
  const { label, indexId, revision = 1, attempt = 1 } = names;
  const staging = await storage.stage({ label, indexId, attempt });
  const content = contentOf(label, revision, keyed.index.engine.name);
  return staging.publish(keyed, content, { phases: { build: 1 } });
}
