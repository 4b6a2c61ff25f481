import { afterEach, expect, test, vi } from "vitest";
import { measureClock } from "../src/server-clock.ts";

const dayMs = 86_400_000;
const serverMs = 1_790_000_000_000;

afterEach(() => {
  vi.restoreAllMocks();
});

test.each([dayMs, -dayMs])(
  "a wall clock that is set by %i ms in between does not reach Redis' time",
  async (jumpMs) => {
    const startedMs = performance.now();
    let samples = 0;
    let aheadMs = 500;
    vi.spyOn(Date, "now").mockImplementation(() => serverMs + (performance.now() - startedMs) + aheadMs);
    const client = {
      async time() {
        const nowMs = serverMs + (performance.now() - startedMs);
        // The first sample is the quickest; the clock is set after it.
        if (samples++ > 0) {
          aheadMs = 500 + jumpMs;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        return [Math.floor(nowMs / 1000), Math.floor((nowMs % 1000) * 1000)];
      },
    };
    const { redisMs, localAheadMs } = await measureClock(client);
    const trueMs = serverMs + (performance.now() - startedMs);
    expect(samples).toBeGreaterThan(1);
    expect(Math.abs(redisMs - trueMs)).toBeLessThan(dayMs / 2);
    expect(Math.abs(localAheadMs - 500)).toBeLessThan(dayMs / 2);
  },
);
