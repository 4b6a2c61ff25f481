/** Samples of which the quickest counts. */
const clockSamples = 3;

/**
 * Redis' clock now, in milliseconds since 1970, and by how much this machine's wall clock is ahead of it. The first is
 * carried on by the monotonic clock: a wall clock that is set meanwhile does not reach it.
 */
export async function measureClock(client: {
  time(): Promise<readonly (number | string)[]>;
}): Promise<{ redisMs: number; localAheadMs: number }> {
  let best = { roundTripMs: Number.POSITIVE_INFINITY, offsetMs: 0, localAheadMs: 0 };
  for (let sample = 0; sample < clockSamples; sample++) {
    const sentAtMs = performance.now();
    const [seconds, micros] = await client.time();
    const atMs = performance.now();
    const roundTripMs = atMs - sentAtMs;
    // The server read its clock half a round trip ago, give or take as much.
    const redisMs = Number(seconds) * 1000 + Number(micros) / 1000 + roundTripMs / 2;
    if (roundTripMs < best.roundTripMs)
      best = { roundTripMs, offsetMs: redisMs - atMs, localAheadMs: Date.now() - redisMs };
  }
  return { redisMs: performance.now() + best.offsetMs, localAheadMs: best.localAheadMs };
}
