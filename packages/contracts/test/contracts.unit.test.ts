import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  demoReportSchema,
  type ErrorName,
  errorTable,
  isLimError,
  LimError,
  limits,
  matchReplySchema,
  matchRequestFieldsSchema,
  parseMatchReply,
  readUuid,
  similarityOf,
  uuidSchema,
  writeUuid,
} from "../src/index.ts";

describe("errors", () => {
  test("codes are unique and in their ranges", () => {
    const codes = Object.values(errorTable).map((row) => row.code);
    expect(new Set(codes).size).toBe(codes.length);
    for (const row of Object.values(errorTable)) {
      expect(row.code).toBeGreaterThanOrEqual(26000);
      expect(row.code).toBeLessThan(26400);
      expect(row.httpStatus).toBeGreaterThanOrEqual(400);
    }
  });

  test("the codes that other systems know stay what they are", () => {
    const known: Partial<Record<ErrorName, number>> = {
      indexer_busy: 26101,
      disk_full: 26103,
      build_crashed: 26104,
      empty_list: 26105,
      build_cancelled: 26106,
      index_id_conflict: 26108,
      out_of_memory: 26109,
      descriptor_version_mismatch: 26305,
      index_refused: 26308,
    };
    for (const [name, code] of Object.entries(known)) expect(errorTable[name as ErrorName].code).toBe(code);
  });

  test("an error survives the wire; an unknown code keeps its text", () => {
    for (const name of Object.keys(errorTable) as ErrorName[]) {
      const back = LimError.fromBody(new LimError(name, "because").toBody());
      expect(isLimError(back, name)).toBe(true);
      expect(back.detail).toBe("because");
    }
    const foreign = LimError.fromBody({ error_code: 99, desc: "Odd", detail: "thing" });
    expect(foreign.errorName).toBe("internal");
    expect(foreign.detail).toContain("99 Odd: thing");
  });

  test("an abort is told from a failure", () => {
    expect(LimError.from(new DOMException("stop", "AbortError")).errorName).toBe("aborted");
    expect(LimError.from(new Error("x"), "redis_unavailable").errorName).toBe("redis_unavailable");
    const own = new LimError("not_found", "x");
    expect(LimError.from(own, "internal")).toBe(own);
  });
});

describe("ids", () => {
  test("a UUID survives its 16 bytes, at any offset", () => {
    fc.assert(
      fc.property(fc.uuid(), fc.integer({ min: 0, max: 40 }), (id, offset) => {
        const bytes = new Uint8Array(64).fill(0xff);
        writeUuid(id, bytes, offset);
        expect(readUuid(bytes, offset)).toBe(id);
        expect(bytes[offset + 16]).toBe(0xff);
      }),
    );
  });
  test("upper case is folded, other text refused", () => {
    const id = "0123ABCD-0000-4000-8000-00000000000F";
    expect(uuidSchema.parse(id)).toBe(id.toLowerCase());
    for (const bad of ["", id.slice(1), `${id}0`, id.replace("A", "G"), id.replaceAll("-", "")])
      expect(uuidSchema.safeParse(bad).success).toBe(false);
    expect(() => writeUuid("xyz", new Uint8Array(16))).toThrow(expect.objectContaining({ code: 26001 }));
  });
});

describe("match messages", () => {
  const fields = { rid: "r1", response_stream: "lim_reply:a" };
  test("defaults, and numbers as the text that streams carry", () => {
    expect(matchRequestFieldsSchema.parse(fields)).toMatchObject({
      limit: 10,
      threshold: 0,
      timeout_ms: limits.defaultMatchTimeoutMs,
    });
    expect(matchRequestFieldsSchema.parse({ ...fields, limit: "25", threshold: "0.5" })).toMatchObject({
      limit: 25,
      threshold: 0.5,
    });
  });
  test("I10, I11: what passes a limit or points elsewhere is refused", () => {
    for (const change of [
      { rid: "" },
      { limit: "0" },
      { limit: String(limits.maxMatchLimit + 1) },
      { limit: "1.5" },
      { limit: "ten" },
      { threshold: "1.01" },
      { threshold: "NaN" },
      { timeout_ms: String(limits.maxMatchTimeoutMs + 1) },
      { min_revision: "-1" },
      { response_stream: "some_other_key" },
      { response_stream: undefined },
    ])
      expect(
        matchRequestFieldsSchema.safeParse({ ...fields, ...change }).success,
        JSON.stringify(change),
      ).toBe(false);
  });
  test("a reply is read back, junk is an error", () => {
    const reply = matchReplySchema.parse({
      rid: "r1",
      status_code: 200,
      result: [["0123abcd-0000-4000-8000-00000000000f", 0.5]],
      error: null,
      index_id: null,
      revision: 3,
      timings: { queue_ms: 1, search_ms: 2 },
    });
    expect(parseMatchReply(JSON.stringify(reply))).toEqual(reply);
    for (const junk of ["", "{", "{}", JSON.stringify({ ...reply, result: [["x", 2]] })])
      expect(() => parseMatchReply(junk)).toThrow(LimError);
  });

  test("a reply is read as its schema says, whatever is odd about it", () => {
    const id = "3f2f0c6e-0000-4000-8000-0000000000ab";
    const usual = {
      rid: "r",
      status_code: 200,
      result: [[id, 0.5]],
      error: null,
      index_id: id,
      revision: 3,
      timings: { queue_ms: 0.1, search_ms: 2 },
    };
    const odd = fc.oneof(
      fc.constantFrom<unknown>(id, id.toUpperCase(), [id], [[id, 1.5]], [[id.toUpperCase(), 1]], [[[id], 1]]),
      fc.constantFrom<unknown>({ queue_ms: 1 }, { queue_ms: 1, search_ms: -1 }, [id, 0.5], 404, 2.5, -1),
      fc.jsonValue(),
    );
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(usual), "more"), odd, (name, value) => {
        const text = JSON.stringify({ ...usual, [name]: value });
        const expected = matchReplySchema.safeParse(JSON.parse(text));
        const parse = () => parseMatchReply(text);
        if (expected.success) expect(parse()).toEqual(expected.data);
        else expect(parse).toThrow(LimError);
      }),
      { numRuns: 2_000 },
    );
  });
  test("similarity is clipped to 0..1", () => {
    expect([-0.2, 0, 0.4, 1, 1.0000001].map(similarityOf)).toEqual([0, 0, 0.4, 1, 1]);
  });
});

test("the demo's report names every figure", () => {
  const figures = Object.fromEntries(
    Object.keys(demoReportSchema.shape.figures.shape).map((name) => [name, 1]),
  );
  const report = { version: 1, ok: true, checks: [{ name: "a", ok: true, figure: "1" }], figures };
  expect(demoReportSchema.safeParse(report).success).toBe(true);
  const { takeover_ms: _, ...rest } = figures;
  expect(demoReportSchema.safeParse({ ...report, figures: rest }).success).toBe(false);
});
