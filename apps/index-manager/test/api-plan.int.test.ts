import { type PlanResponse, planResponseSchema, retentionResponseSchema } from "@lim/contracts";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Previews } from "../src/previews.ts";
import { type Api, ask, emptyPreviews, emptyRetention, refusal, startApi } from "./api-harness.ts";
import { uuidOf } from "./test-indexer.ts";

type Decision = PlanResponse["decisions"][number];

const decision = (number: number, action: Decision["action"]): Decision => ({
  list_id: uuidOf(number),
  action,
  mode: action === "create" ? "rebuild" : null,
  reason: action === "create" ? "missing" : "unchanged",
  detail: "why",
  task_id: null,
  face_count: 5,
  list_revision: 5,
  newest_index_id: null,
  newest_revision: null,
});
/** Lists 1 to 5; the odd ones would be built. */
const decisions = [3, 1, 5, 2, 4].map((number) => decision(number, number % 2 === 1 ? "create" : "skip"));
const previews: Previews = {
  ...emptyPreviews,
  plan: async () => ({
    due: true,
    last_plan_time: null,
    next_plan_time: "2026-11-21T11:00:00.000Z",
    decisions,
  }),
};

let api: Api;
let app: FastifyInstance;

beforeAll(async () => {
  api = await startApi();
});
beforeEach(async () => {
  app = await api.app({ previews });
});
afterEach(() => api.clear());
afterAll(() => api.close());

const plan = async (query = "") => planResponseSchema.parse((await ask(app, "GET", `/1/plan${query}`)).body);
const listsOf = (response: PlanResponse) => response.decisions.map((one) => one.list_id);

describe("the next plan as a dry run", () => {
  it("shows every list considered, by id, and counts all of them", async () => {
    const whole = await plan();
    expect(whole).toMatchObject({
      due: true,
      last_plan_time: null,
      next_plan_time: "2026-11-21T11:00:00.000Z",
      count: 5,
      creates: 3,
      skips: 2,
      next_cursor: null,
    });
    expect(listsOf(whole)).toEqual([1, 2, 3, 4, 5].map(uuidOf));
  });

  it("filters by list and action, while the counts stay those of all", async () => {
    const skips = await plan("?action=skip");
    expect(listsOf(skips)).toEqual([2, 4].map(uuidOf));
    expect(skips).toMatchObject({ count: 5, creates: 3, skips: 2 });
    expect((await plan(`?list_id=${uuidOf(3).toUpperCase()}`)).decisions).toEqual([decision(3, "create")]);
    expect((await plan(`?list_id=${uuidOf(3)}&action=skip`)).decisions).toEqual([]);
    expect((await plan(`?list_id=${uuidOf(9)}`)).decisions).toEqual([]);
  });

  it("pages", async () => {
    const first = await plan("?action=create&limit=2");
    expect(listsOf(first)).toEqual([1, 3].map(uuidOf));
    const second = await plan(`?action=create&limit=2&cursor=${first.next_cursor}`);
    expect([listsOf(second), second.next_cursor]).toEqual([[uuidOf(5)], null]);
  });

  it.each(["?action=build", "?list_id=1", "?limit=10001", "?limit=0", "?cursor=AAAA", "?label=1"])(
    "I11: %s is bad input",
    async (query) => {
      expect((await refusal(app, "GET", `/1/plan${query}`)).slice(0, 2)).toEqual([400, 26001]);
    },
  );
});

describe("the next retention as a dry run", () => {
  it("is shown as it was computed", async () => {
    const { body } = await ask(app, "GET", "/1/retention");
    expect(retentionResponseSchema.parse(body)).toEqual(emptyRetention);
    expect((await refusal(app, "GET", "/1/retention?limit=1")).slice(0, 2)).toEqual([400, 26001]);
  });
});
