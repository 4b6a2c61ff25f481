import type { EngineName } from "@lim/contracts";
import type { EngineAdapter } from "./port.ts";

/** Loads an engine on first use, so that who never builds or serves an index needs no native module. */
export declare function loadEngine(name: EngineName): Promise<EngineAdapter>;
