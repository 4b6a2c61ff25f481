import { LimError } from "@lim/contracts";
import type { EngineAdapter, RerankKind } from "../port.ts";

export async function loadHnsw(_rerank: RerankKind): Promise<EngineAdapter> {
  throw new LimError("engine_failed", "not yet");
}
