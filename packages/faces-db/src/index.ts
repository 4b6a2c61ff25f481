import type { FacesDb } from "./port.ts";

export * from "./port.ts";

/** Opens a pool; connects lazily. */
export declare function openFacesDb(options: {
  connectionString: string;
  maxConnections?: number;
  applicationName?: string;
}): FacesDb;
