import { describe, expect, it } from "vitest";
import { mapBounded, singleFlight } from "../src/concurrency.ts";

/** A run that ends when it is told to, or when its signal fires. */
function controlled() {
  const runs: { signal: AbortSignal; end: (result: string) => void; fail: (thrown: Error) => void }[] = [];
  const work = (signal: AbortSignal) =>
    new Promise<string>((resolve, reject) => {
      runs.push({ signal, end: resolve, fail: reject });
      signal.addEventListener("abort", () => reject(new Error("stopped")), { once: true });
    });
  return { runs, work };
}
const never = () => new AbortController().signal;

describe("mapBounded", () => {
  it("keeps the order and the bound", async () => {
    let running = 0;
    let most = 0;
    const results = await mapBounded([5, 1, 4, 2, 3], 2, async (n) => {
      most = Math.max(most, ++running);
      for (let i = 0; i < n; i++) await Promise.resolve();
      running--;
      return n * 10;
    });
    expect(results).toEqual([50, 10, 40, 20, 30]);
    expect(most).toBe(2);
  });

  it("starts no more after a failure", async () => {
    const started: number[] = [];
    const failing = mapBounded([1, 2, 3, 4, 5, 6], 2, async (n) => {
      started.push(n);
      await Promise.resolve();
      if (n === 2) throw new Error("two");
    });
    await expect(failing).rejects.toThrow("two");
    const atFailure = started.length;
    await new Promise((resolve) => setImmediate(resolve));
    expect(started.length).toBe(atFailure);
    expect(atFailure).toBeLessThan(6);
  });
});

describe("singleFlight", () => {
  it("who calls while it runs gets the running one's result; who calls later, a new one", async () => {
    const { runs, work } = controlled();
    const fly = singleFlight(work);
    const [first, second] = [fly(never()), fly(never())];
    expect(runs).toHaveLength(1);
    runs[0]?.end("one");
    expect(await Promise.all([first, second])).toEqual(["one", "one"]);
    const third = fly(never());
    expect(runs).toHaveLength(2);
    runs[1]?.end("two");
    expect(await third).toBe("two");
  });

  it("a failure reaches all of its callers and none after them", async () => {
    const { runs, work } = controlled();
    const fly = singleFlight(work);
    const calls = [fly(never()), fly(never())];
    runs[0]?.fail(new Error("broken"));
    for (const result of await Promise.allSettled(calls))
      expect(result).toMatchObject({ status: "rejected", reason: { message: "broken" } });
    const next = fly(never());
    runs[1]?.end("fine");
    expect(await next).toBe("fine");
  });

  it("goes on for the others when one gives up, and stops with the last of them", async () => {
    const { runs, work } = controlled();
    const fly = singleFlight(work);
    const [one, other] = [new AbortController(), new AbortController()];
    const calls = [fly(one.signal), fly(other.signal)];
    one.abort();
    await expect(calls[0]).rejects.toMatchObject({ errorName: "aborted" });
    expect(runs[0]?.signal.aborted).toBe(false);
    other.abort();
    await expect(calls[1]).rejects.toMatchObject({ errorName: "aborted" });
    expect(runs[0]?.signal.aborted).toBe(true);
    const next = fly(never());
    expect(runs, "a stopped run is nobody's result").toHaveLength(2);
    runs[1]?.end("fresh");
    expect(await next).toBe("fresh");
  });

  it("a run that is slow to stop is nobody's result", async () => {
    const ends: ((result: string) => void)[] = [];
    const fly = singleFlight(() => new Promise<string>((resolve) => ends.push(resolve)));
    const caller = new AbortController();
    const call = fly(caller.signal);
    caller.abort();
    await expect(call).rejects.toMatchObject({ errorName: "aborted" });
    const next = fly(never());
    expect(ends).toHaveLength(2);
    ends[0]?.("stopped at last");
    ends[1]?.("fresh");
    expect(await next).toBe("fresh");
  });

  it("starts nothing for a caller that has given up already", async () => {
    const { runs, work } = controlled();
    await expect(singleFlight(work)(AbortSignal.abort())).rejects.toMatchObject({ errorName: "aborted" });
    expect(runs).toHaveLength(0);
  });
});
