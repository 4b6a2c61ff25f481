/** A server that was found or started for this machine. */
export interface LocalServer {
  url: string;
  /** Process ids that were started here; empty for a server that was found. */
  pids: number[];
  /** Ends what was started here, in order and then by force; returns once it is gone. Safe to call twice. */
  stop(): Promise<void>;
}
