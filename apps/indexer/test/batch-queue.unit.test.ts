import { describe, expect, it } from "vitest";
import { BatchQueue } from "../src/batch-queue.ts";

const batchBytes = 100;
const batch = (id: number) => ({ id, byteLength: batchBytes });
type Batch = ReturnType<typeof batch>;

describe("queue between reading and inserting", () => {
  it("hands batches over in order and then ends", async () => {
    const queue = new BatchQueue<Batch>({ maxQueuedBytes: 10 * batchBytes });
    for (const id of [1, 2, 3]) await queue.push(batch(id));
    queue.end();
    const ids = [];
    for (let next = await queue.take(); next; next = await queue.take()) ids.push(next.id);
    expect(ids).toEqual([1, 2, 3]);
    expect(queue.queuedBytes).toBe(0);
  });

  it("I10 makes the reader wait at its limit and lets it go on as batches are taken", async () => {
    const queue = new BatchQueue<Batch>({ maxQueuedBytes: 2 * batchBytes });
    await queue.push(batch(1));
    await queue.push(batch(2));
    let pushed = false;
    const third = queue.push(batch(3)).then(() => {
      pushed = true;
    });
    await new Promise(setImmediate);
    expect(pushed).toBe(false);
    await queue.take();
    await third;
    expect(queue.queuedBytes).toBe(2 * batchBytes);
  });

  it("passes a batch that is larger than the limit when it is alone", async () => {
    const queue = new BatchQueue<Batch>({ maxQueuedBytes: 1 });
    await queue.push(batch(1));
    expect((await queue.take())?.id).toBe(1);
  });

  it("gives what waits at once, if it is small enough", async () => {
    const queue = new BatchQueue<Batch>({ maxQueuedBytes: 3 * batchBytes });
    expect(queue.takeNow(batchBytes)).toBeUndefined();
    await queue.push(batch(1));
    await queue.push(batch(2));
    expect([queue.takeNow(batchBytes - 1), queue.takeNow(batchBytes)?.id]).toEqual([undefined, 1]);
    expect((await queue.take())?.id).toBe(2);
    expect(queue.queuedBytes).toBe(0);
  });

  it("tells either side of the other's failure", async () => {
    const queue = new BatchQueue<Batch>({ maxQueuedBytes: batchBytes });
    const taking = queue.take();
    queue.fail(new Error("connection lost"));
    await expect(taking).rejects.toThrow("connection lost");
    await expect(queue.push(batch(1))).rejects.toThrow("connection lost");

    const full = new BatchQueue<Batch>({ maxQueuedBytes: batchBytes });
    await full.push(batch(1));
    const pushing = full.push(batch(2));
    full.fail(new Error("engine failed"));
    await expect(pushing).rejects.toThrow("engine failed");
  });
});
