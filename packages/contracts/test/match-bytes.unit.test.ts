import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeMatchReply,
  encodeMatchReply,
  LimError,
  type MatchReply,
  type MatchRequestTexts,
  matchRequestFieldsSchema,
  parseMatchReply,
  usualMatchFields,
} from "../src/index.ts";

const share = fc.double({ min: 0, max: 1, noNaN: true });
const match = fc.tuple(fc.uuid(), fc.oneof(share, fc.constantFrom(0, 1, 0.5, 0.999999999, 1e-12)));
const duration = fc.double({ min: 0, max: 30_000, noNaN: true });
const success: fc.Arbitrary<MatchReply> = fc.record({
  rid: fc.oneof(fc.uuid(), fc.string({ minLength: 1, maxLength: 40, unit: "binary" })),
  status_code: fc.constant(200),
  result: fc.array(match, { maxLength: 12 }),
  error: fc.constant(null),
  index_id: fc.uuid(),
  revision: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
  timings: fc.record({ queue_ms: duration, search_ms: duration }),
});

const textOf = (reply: MatchReply) => Buffer.from(encodeMatchReply(reply));

describe("replies as bytes", () => {
  test("what is written is read again: all of it, but for digits that no search tells apart", () => {
    fc.assert(
      fc.property(success, (reply) => {
        const text = textOf(reply);
        const read = decodeMatchReply(text);
        expect(read).toEqual(parseMatchReply(text.toString()));
        const rounded = {
          ...reply,
          result: reply.result.map(([id, s]) => [id, expect.closeTo(s, 7)]),
          timings: {
            queue_ms: expect.closeTo(reply.timings?.queue_ms ?? 0, 2),
            search_ms: expect.closeTo(reply.timings?.search_ms ?? 0, 2),
          },
        };
        expect(read).toEqual(rounded);
      }),
    );
  });

  test("an error, with whatever text, is written and read whole", () => {
    const error = new LimError("bad_match_request", 'ж "x" \n').toBody();
    const reply: MatchReply = {
      rid: 'a"\\',
      status_code: 400,
      result: [],
      error,
      index_id: null,
      revision: null,
      timings: null,
    };
    expect(decodeMatchReply(textOf(reply))).toEqual(reply);
  });

  const outcome = (read: () => MatchReply) => {
    try {
      return read();
    } catch (thrown) {
      return (thrown as LimError).errorName;
    }
  };

  test("I11: numbers that are none, or out of bounds, are refused as JSON and the schema refuse them", () => {
    const [sample] = fc.sample(success, 1) as [MatchReply];
    const reply = {
      ...sample,
      rid: "r",
      result: [["7c2c4f0a-27c7-4c40-9f7b-0b1f6a5f8a11", 0.5]],
    } as MatchReply;
    const text = String(textOf(reply));
    for (const number of [
      "1",
      "1.5",
      "-0.5",
      "05",
      "0.",
      ".5",
      "",
      "1e-1",
      "0.12345678901234567",
      "0.5.5",
      "0x1",
    ]) {
      const changed = text.replace("0.50000000", number);
      expect(changed).not.toBe(text);
      expect(outcome(() => decodeMatchReply(Buffer.from(changed)))).toEqual(
        outcome(() => parseMatchReply(changed)),
      );
    }
  });

  test("I11: of damaged bytes it makes what JSON and the schema make of them, or refuses them as they do", () => {
    const damage = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), byte: fc.nat({ max: 127 }) });
    const cut = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(success, fc.array(damage, { maxLength: 2 }), fc.option(cut), (reply, damages, end) => {
        const bytes = textOf(reply);
        for (const { at, byte } of damages) bytes[Math.floor(at * (bytes.length - 1))] = byte;
        const text = bytes.subarray(0, end === null ? bytes.length : Math.floor(end * bytes.length));
        expect(outcome(() => decodeMatchReply(text))).toEqual(
          outcome(() => parseMatchReply(text.toString())),
        );
      }),
      { numRuns: 500 },
    );
  });
});

test("I11: fields are taken as the schema takes them, or left to it", () => {
  const number = fc.oneof(
    fc.constantFrom("0", "1", "1000", "1001", "30000", "30001"),
    fc.constantFrom("", " ", "1e2", "0x10", "10.0", "10.5", "-0", "NaN", "Infinity", "1".repeat(20), "ten"),
    fc.double({ min: -0.5, max: 1.5, noNaN: true }).map(String),
  );
  const text = fc.oneof(
    fc.string({ maxLength: 8 }),
    fc.constant("x".repeat(128)),
    fc.constant("x".repeat(257)),
  );
  const stream = fc.oneof(text, fc.constant("lim_reply:a"), fc.constant(`lim_reply:${"x".repeat(250)}`));
  const may = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
  const texts: fc.Arbitrary<MatchRequestTexts> = fc.record({
    rid: may(text),
    limit: may(number),
    threshold: may(number),
    timeout_ms: may(number),
    min_revision: may(number),
    response_stream: may(stream),
    response_channel: may(text),
    luna_request_id: may(text),
    traceparent: may(text),
  });
  let taken = 0;
  fc.assert(
    fc.property(texts, (sent) => {
      const fields = usualMatchFields(sent);
      if (!fields) return;
      taken++;
      expect(fields).toEqual(matchRequestFieldsSchema.parse(sent));
    }),
    { numRuns: 3_000 },
  );
  expect(taken).toBeGreaterThan(0);
  const usual = { rid: "r", limit: "25", response_stream: "lim_reply:a" } as MatchRequestTexts;
  expect(usualMatchFields(usual)).toEqual(matchRequestFieldsSchema.parse(usual));
});
