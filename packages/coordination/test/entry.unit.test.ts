import { limits } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseEntry } from "../src/streams/entry.ts";
import { LabelHold } from "../src/streams/hold.ts";

const now = 1_800_000_000_000;
const parse = (fields: (string | Buffer)[], entryId = `${now}-0`, deliveries = 1) =>
  parseEntry({
    label: "l",
    entryId,
    fields: fields.map((field) => (typeof field === "string" ? Buffer.from(field) : field)),
    deliveries,
    redisNowMs: now + 100,
    localNowMs: 5_000,
  });
const good = ["rid", "r", "descriptor", "d", "response_stream", "lim_reply:x"];

describe("parsing an entry", () => {
  it("counts its time from its stream id by Redis' clock", () => {
    const entry = parse([...good, "timeout_ms", "700"]);
    expect(entry).toMatchObject({ waitedMs: 100, deadlineMs: 5_600, rid: "r" });
  });

  it("I10: an id of the future lives no longer than one of now", () => {
    expect(parse(good, "99999999999999-0")).toMatchObject({
      waitedMs: 0,
      deadlineMs: 5_000 + limits.defaultMatchTimeoutMs,
    });
  });

  it("I11: whatever the bytes, it never throws, and answers go to reply streams only", () => {
    const names = fc.constantFrom(
      ...["rid", "descriptor", "limit", "timeout_ms", "response_stream", "response_channel", "__proto__"],
    );
    const bytes = fc.uint8Array({ maxLength: 400 }).map((array) => Buffer.from(array));
    const name = fc.oneof(
      names.map((text) => Buffer.from(text)),
      bytes,
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(name, bytes), { maxLength: 24 }), fc.string(), (fields, id) => {
        const entry = parse(fields, id);
        const stream = entry.destination.stream;
        expect(stream === undefined || stream.startsWith("lim_reply:")).toBe(true);
        if ("invalid" in entry.request) expect(entry.request.invalid.length).toBeGreaterThan(0);
      }),
    );
  });
});

describe("what is held of a label", () => {
  const entry = (n: number, deliveries = 1) => parse(good, `${now}-${n}`, deliveries);

  it("I11: hands out what was delivered before alone, in turn with the rest", () => {
    const hold = new LabelHold("l", 4);
    for (let n = 0; n < 3; n++) hold.add(entry(n));
    hold.add(entry(10, 2));
    hold.add(entry(11, 3));
    const sizes: number[] = [];
    while (hold.hasWork) sizes.push(hold.next().length);
    expect(sizes).toEqual([1, 3, 1]);
  });

  it("I10: batches stay within their size, whatever was added", () => {
    const hold = new LabelHold("l", 4);
    for (let n = 0; n < 10; n++) hold.add(entry(n));
    expect(hold.room).toBeLessThanOrEqual(0);
    expect(hold.next()).toHaveLength(4);
    hold.drop(new Set([`${now}-5`]));
    expect(hold.next().map(({ entryId }) => entryId)).not.toContain(`${now}-5`);
  });
});
