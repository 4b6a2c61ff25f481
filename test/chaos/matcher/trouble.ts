export type TroubleKind = "redis" | "postgres" | "storage" | "matcher";

/** What a fault leaves behind: reconnections, label keys that run out, backoffs of loads. Milliseconds. */
const aftermathMs: Record<TroubleKind, number> = {
  redis: 5_000,
  postgres: 5_000,
  storage: 5_000,
  matcher: 6_000,
};

/** When which part of the world was in trouble, so that errors are judged by whether they have a cause. */
export interface Troubles {
  /** The returned function ends it. */
  begin(kind: TroubleKind): () => void;
  /** Whether there was such trouble, or its aftermath, at any moment since `sinceMs`, by performance.now(). */
  any(kinds: readonly TroubleKind[], sinceMs: number): boolean;
}

export function createTroubles(): Troubles {
  const open: Record<TroubleKind, number> = { redis: 0, postgres: 0, storage: 0, matcher: 0 };
  const overAtMs: Record<TroubleKind, number> = {
    redis: Number.NEGATIVE_INFINITY,
    postgres: Number.NEGATIVE_INFINITY,
    storage: Number.NEGATIVE_INFINITY,
    matcher: Number.NEGATIVE_INFINITY,
  };
  return {
    begin(kind) {
      open[kind]++;
      let ended = false;
      return () => {
        if (ended) return;
        ended = true;
        open[kind]--;
        overAtMs[kind] = performance.now() + aftermathMs[kind];
      };
    },
    any: (kinds, sinceMs) => kinds.some((kind) => open[kind] > 0 || overAtMs[kind] >= sinceMs),
  };
}
