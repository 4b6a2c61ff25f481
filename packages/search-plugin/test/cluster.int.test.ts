import { randomUUID } from "node:crypto";
import { startTestRedisCluster, type TestRedisCluster } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSearchPlugin } from "../src/index.ts";
import { faces, serve, shape } from "./support.ts";

let cluster: TestRedisCluster;
beforeAll(async () => {
  cluster = await startTestRedisCluster();
});
afterAll(() => cluster?.stop());

describe("the plugin on a Redis Cluster", () => {
  it("I6: sees the labels of all nodes and gets the answers for each, also while one moves", async () => {
    const labels = Array.from({ length: 6 }, () => randomUUID());
    const matchers = await Promise.all(
      labels.map((label) =>
        serve({ redisUrl: cluster.url, label, answer: (entry) => ({ result: [[entry.label, 1]] }) }),
      ),
    );
    const plugin = await createSearchPlugin({ redis: { url: cluster.url }, ...shape });
    expect(new Set(plugin.labels().map(({ label }) => label))).toEqual(new Set(labels));
    const match = (label: string) =>
      plugin.match({ label, references: [{ descriptor: faces.vector(0, 0) }], timeoutMs: 20_000 });
    for (const label of labels) {
      const [answer] = await match(label);
      expect(answer).toMatchObject({ path: "index", matches: [[label, 1]], revision: 3 });
    }
    const [label = ""] = labels;
    const key = `matching_label__${label}__test:1`;
    const from = await cluster.portOf(key);
    await cluster.moveSlotOf(key, cluster.nodes.find(({ port }) => port !== from)?.port ?? 0);
    expect((await match(label))[0]).toMatchObject({ path: "index" });
    await plugin.close();
    for (const matcher of matchers) await matcher.stop();
  });
});
