import { Histogram, Registry } from "prom-client";
import { describe, expect, it } from "vitest";
import { metricsCatalogue, metricsIn } from "../src/index.ts";
import type { MetricSpec } from "../src/metrics/spec.ts";

describe("the catalogue", () => {
  it.each(Object.entries<MetricSpec>(metricsCatalogue))("names %s as its kind is named", (name, spec) => {
    expect(name).toMatch(/^lim_[a-z]+(_[a-z]+)+$/);
    expect(name.endsWith("_total")).toBe(spec.type === "counter");
    expect(spec.buckets !== undefined).toBe(spec.type === "histogram");
    for (const unit of ["seconds", "bytes", "revisions"])
      expect(
        new RegExp(`_${unit}(_max)?$`).test(name) || (unit === "revisions" && /behind_by/.test(name)),
      ).toBe(spec.unit === unit);
  });

  it("makes metrics with its help and labels, which are read at each scrape", async () => {
    const registry = new Registry();
    const { counter, gauge } = metricsIn(registry);
    counter("lim_http_errors_total").inc({ error: "fenced" });
    let scrapes = 0;
    gauge("lim_indexer_building", (building) => building.set(++scrapes));
    await registry.metrics();
    const text = await registry.metrics();
    expect(text).toContain(`# HELP lim_http_errors_total ${metricsCatalogue.lim_http_errors_total.help}`);
    expect(text).toMatch(/^lim_http_errors_total\{error="fenced"\} 1$/m);
    expect(text).toMatch(/^lim_indexer_building 2$/m);
  });
});

describe("a histogram of a hot path", () => {
  it("says what a usual one says", async () => {
    const name = "lim_matcher_stage_seconds";
    const { help, buckets } = metricsCatalogue[name];
    const registries = [new Registry(), new Registry()] as const;
    const fast = metricsIn(registries[0]).buckets(name, "stage", ["waiting", "search"]);
    const usual = new Histogram({
      name,
      help,
      buckets: [...buckets],
      labelNames: ["stage"],
      registers: [registries[1]],
    });
    const observations = [0, 0.5, 0.500_1, 1, 7, 5_000, 5_001, 1e9];
    for (const stage of ["waiting", "search"] as const)
      for (const [count, ms] of observations.entries()) {
        fast.observeMs(stage, ms, count);
        for (let i = 0; i < count; i++) usual.observe({ stage }, ms / 1_000);
      }
    const lines = async (registry: Registry) =>
      (await registry.metrics()).split("\n").filter((line) => line && !line.includes("_sum"));
    expect(await lines(registries[0])).toEqual(await lines(registries[1]));
    const sum = /_sum\{stage="search"\} (\S+)/.exec(await registries[0].metrics())?.[1];
    expect(Number(sum)).toBeCloseTo(observations.reduce((all, ms, count) => all + ms * count, 0) / 1_000, 3);
  });
});
