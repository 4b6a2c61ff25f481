import { LimError } from "@lim/contracts";
import type { MatchEntry } from "@lim/coordination";
import { expect, test } from "vitest";
import { FailureLog } from "../src/failure-log.ts";
import { errorReply } from "../src/match-request.ts";

function failedOf(rid: string, ids: { luna_request_id?: string; traceparent?: string } = {}) {
  const fields = { rid, limit: 1, threshold: 0, timeout_ms: 1, ...ids };
  const entry: MatchEntry = {
    label: "a",
    entryId: "1-0",
    deliveries: 1,
    waitedMs: 0,
    deadlineMs: 0,
    rid,
    request: { fields, descriptor: Buffer.alloc(0) },
  };
  return { entry, reply: errorReply(entry, new LimError("bad_match_request", "no")) };
}

test("requests that fail are named by their callers' ids, in bounded lines, a bounded number a second", () => {
  const lines: Record<string, unknown>[] = [];
  const info = (fields: object) => lines.push(fields as Record<string, unknown>);
  const log = new FailureLog({ debug() {}, info, warn() {}, error() {} });
  const ids = { luna_request_id: "1,x", traceparent: "00-a-b-01" };
  log.note([failedOf("r1", ids), failedOf("r2")]);
  const code = new LimError("bad_match_request", "").code;
  expect(lines[0]).toEqual({
    label: "a",
    failed: 2,
    requests: [
      { rid: "r1", ...ids, error_code: code },
      { rid: "r2", error_code: code },
    ],
  });
  log.note(Array.from({ length: 50 }, (_, i) => failedOf(`r${i}`)));
  expect(lines[1]).toMatchObject({ failed: 50, requests: { length: 10 } });
  for (let i = 0; i < 100; i++) log.note([failedOf("r")]);
  // A second may have begun anew meanwhile.
  expect(lines.length).toBeLessThan(20);
});
