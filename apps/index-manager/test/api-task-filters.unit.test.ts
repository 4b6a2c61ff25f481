import { LimError } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { filterOf, filterShape, hasFilter, millisOf } from "../src/api/task-filters.ts";

const schema = z.strictObject(filterShape);
const faults = (query: object) =>
  schema.safeParse(query).error?.issues.map((issue) => `${issue.path}: ${issue.message}`) ?? [];
const id = "5F0B1B0E-8A1F-4F0E-9D0C-0D1F6F0A7C11";

describe("filters of tasks", () => {
  it("become the store's filter, ids in one spelling and without repetition", () => {
    const query = schema.parse({
      task_ids: `${id},${id.toLowerCase()}`,
      statuses: "success,error,success",
      list_id: id,
      indexer: "http://Node-7:80/",
      create_time__gte: "2026-11-21T10:00:00Z",
      create_time__lt: "2026-11-21T12:00:00.5+01:00",
      end_time__lt: "1970-01-01T00:00:01-00:00",
    });
    expect(filterOf(query)).toEqual({
      taskIds: [id.toLowerCase()],
      statuses: ["success", "error"],
      listId: id.toLowerCase(),
      indexer: "http://node-7",
      createTime: {
        gteMs: Date.UTC(2026, 10, 21, 10),
        ltMs: Date.UTC(2026, 10, 21, 11, 0, 0, 500),
      },
      endTime: { ltMs: 1_000 },
    });
  });

  it.each([
    ["http://node-7:80", "http://node-7"],
    ["http://Node-7:5180/", "http://node-7:5180"],
    ["http://[::1]:5180", "http://[::1]:5180"],
    ["http://1.2.3.999", "http://1.2.3.999"],
    ["http://host:99999", "http://host:99999"],
  ])("an indexer %s is looked for as %s", (indexer, origin) => {
    expect(filterOf(schema.parse({ indexer })).indexer).toBe(origin);
  });

  it("nothing asked for is no filter", () => {
    expect(filterOf(schema.parse({}))).toEqual({});
    expect(hasFilter(schema.parse({}))).toBe(false);
    for (const query of [{ list_id: id }, { end_time__gte: "2026-11-21T10:00:00Z" }])
      expect(hasFilter(schema.parse(query))).toBe(true);
  });

  it("times finer than a millisecond are rounded up, which loses no task on either side", () => {
    expect(millisOf("1970-01-01T00:00:00.001Z")).toBe(1);
    expect(millisOf("1970-01-01T00:00:00.0010000Z")).toBe(1);
    expect(millisOf("1970-01-01T00:00:00.0010001Z")).toBe(2);
    expect(millisOf("1970-01-01T01:00:00.000000001+01:00")).toBe(1);
  });

  it.each([
    ["reversed", "2026-11-21T10:00:01Z", "2026-11-21T10:00:00Z"],
    ["empty", "2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"],
    ["reversed by its offset", "2026-11-21T10:00:00Z", "2026-11-21T10:30:00+01:00"],
  ])("I11: a range that is %s is refused with both ends named", (_name, gte, lt) => {
    const query = schema.parse({ start_time__gte: gte, start_time__lt: lt });
    expect(() => filterOf(query)).toThrow(LimError);
    expect(() => filterOf(query)).toThrow(`start_time__gte (${gte}) must be before start_time__lt (${lt})`);
  });

  it.each([
    "2026-11-21",
    "2026-11-21T10:00:00",
    "2026-11-21T10:00Z",
    "2026-11-21T10:00:00 01:00",
    "2026-02-30T10:00:00Z",
    "2026-11-21T25:00:00Z",
    "1795255200",
    "",
    `2026-11-21T10:00:00.${"1".repeat(80)}Z`,
  ])("I11: %s is no time", (text) => {
    expect(faults({ create_time__gte: text }).join()).toMatch(/create_time__gte: (must be a time|Too big)/);
  });

  it.each([
    ["no ids", { task_ids: "" }, "1 to 100 task ids"],
    ["an id and nothing", { task_ids: `${id},` }, "1 to 100 task ids"],
    ["too many ids", { task_ids: Array(101).fill(id).join() }, "1 to 100 task ids"],
    ["an unknown status", { statuses: "pending,lost" }, "statuses of pending, indexing"],
    ["an indexer without scheme", { indexer: "10.0.0.7:5180" }, "origin"],
    ["an indexer with a user", { indexer: "http://user@host" }, "origin"],
    ["an indexer with a bad port", { indexer: "http://host:x" }, "origin"],
    ["an unknown name", { create_time: "2026-11-21T10:00:00Z" }, "Unrecognized key"],
  ])("I11: %s is refused with the reason", (_name, query, reason) => {
    expect(faults(query).join()).toContain(reason);
  });
});
