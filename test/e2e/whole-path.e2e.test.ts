import { defaults, type Task } from "@lim/contracts";
import type { SearchPlugin } from "@lim/search-plugin";
import { createFaceGenerator, eventually, type Service } from "@lim/testkit";
import { availableEngines } from "@lim/vector-index";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  descriptorVersion,
  facesOf,
  importFaces,
  managerCall,
  matchUnderLoad,
  oracleOf,
  startTestStack,
  type TestStack,
  times,
  untilServed,
  untilTaskEnds,
} from "./support.ts";

const dim = 64;
const generator = createFaceGenerator({ dim, effectiveDim: 40 });
const large = facesOf("large", generator.matrix({ firstPerson: 0, persons: 3_000 }), dim);
const small = facesOf("small", generator.matrix({ firstPerson: 10_000, persons: 400 }), dim);
const newcomers = facesOf("new", generator.matrix({ firstPerson: 20_000, persons: 25 }), dim);
const probes = Array.from({ length: 200 }, (_, i) => generator.vector(i * 15, 1));

/** In order on one stack: each test leaves it running for the next. What no engine has a part in is tried with one. */
describe.each(await availableEngines())("the whole path on real processes, engine %s", (engine) => {
  let stack: TestStack;
  let label: string;
  let smallLabel: string;
  let indexOnly: SearchPlugin;
  let plugin: SearchPlugin;
  const withOneEngine = test.runIf(engine === defaults.engine);

  const servicesOf = (kind: Service["kind"]) => stack.services.filter((service) => service.kind === kind);
  const survivor = () => {
    const [manager] = servicesOf("index-manager");
    if (!manager) throw new Error("no manager runs");
    return manager;
  };
  const newestTask = async (listId: string) =>
    (await managerCall<{ tasks: Task[] }>(survivor(), "GET", `/1/tasks?list_id=${listId}&limit=1`)).body
      .tasks[0];

  beforeAll(async () => {
    stack = await startTestStack({ dim, minListSize: 3_000, env: { LIM_ENGINE: engine } });
    label = await importFaces(stack.db, "large", large, dim);
    smallLabel = await importFaces(stack.db, "small", small, dim);
    for (const kind of ["indexer", "indexed-matcher", "index-manager"] as const) {
      // The first matcher is the one that is killed: its label keys end soon.
      const soon = { LIM_LABEL_KEY_TTL_MS: String(times.shortLabelKeyTtlMs) };
      await stack.start(kind, kind === "indexed-matcher" ? soon : {});
      await stack.start(kind);
    }
    indexOnly = await stack.plugin();
    plugin = await stack.plugin({ exact: true });
  });
  afterAll(() => stack?.stop());

  test("the large list is planned, built and served; answers agree with exact search", async () => {
    await untilServed(indexOnly, label, 2);
    const task = await newestTask(label);
    expect(task).toMatchObject({ status: "success", trigger: "plan", mode: "rebuild", error: null });
    expect(await newestTask(smallLabel)).toBeUndefined();

    const answers = await indexOnly.match({
      label,
      references: probes.map((descriptor) => ({ descriptor })),
      limit: 10,
    });
    const queries = new Float32Array(probes.length * dim);
    for (const [row, vector] of probes.entries()) queries.set(vector, row * dim);
    const oracle = oracleOf(large, dim);
    const truth = await oracle.search(queries, { limit: 10 });
    await oracle.close();
    let found = 0;
    for (const [row, answer] of answers.entries()) {
      expect(answer).toMatchObject({ path: "index", indexId: task?.task_id });
      const got = new Map(answer.matches);
      for (const [faceId, similarity] of truth[row] ?? []) {
        if (!got.has(faceId)) continue;
        found++;
        expect(got.get(faceId)).toBeCloseTo(similarity, 4);
      }
    }
    expect(found / (probes.length * 10)).toBeGreaterThanOrEqual(0.98);
  });

  test("a task is followed through the logs of managers, indexers and their builds by its ids", async () => {
    const task = await newestTask(label);
    const linesOf = (kind: Service["kind"], message: string) =>
      eventually(`${kind}: ${message}`, () => {
        const found = servicesOf(kind)
          .flatMap((service) => service.process.lines)
          .filter((line) => line.includes(`"task_id":"${task?.task_id}"`) && line.includes(message));
        return found.length > 0 ? found.map((line): Record<string, unknown> => JSON.parse(line)) : undefined;
      });
    await linesOf("index-manager", "task planned");
    const [dispatched] = await linesOf("index-manager", "task dispatched");
    expect(dispatched).toMatchObject({ service: "index-manager", list_id: label, attempt: 1 });
    const [accepted] = await linesOf("indexer", "build accepted");
    expect(accepted).toMatchObject({ service: "indexer", luna_request_id: dispatched?.luna_request_id });
    expect(accepted?.luna_request_id).toMatch(/^\d+,[0-9a-f-]{36}$/);
    for (const message of ["build begins", "published", "build succeeded"])
      expect((await linesOf("indexer", message))[0]).toMatchObject({ list_id: label, attempt: 1 });
    await linesOf("index-manager", "task succeeded");
  });

  test("the small list is answered exactly and says so", async () => {
    const [vector] = small.vectors;
    const answers = await Promise.all(
      Array.from({ length: 32 }, () =>
        plugin.match({
          label: smallLabel,
          references: [{ descriptor: vector ?? new Float32Array(0) }],
          limit: 1,
        }),
      ),
    );
    for (const [answer] of answers) {
      expect(answer?.path).toBe("exact");
      expect(answer?.matches[0]?.[0]).toBe(small.ids[0]);
    }
    await expect(
      indexOnly.match({ label: smallLabel, references: [{ descriptor: vector ?? new Float32Array(0) }] }),
    ).rejects.toMatchObject({ errorName: "not_served" });
  });

  test("I5, I7: links and unlinks are followed in packets while matches run", async () => {
    const gone = large.ids.slice(-5);
    const load = matchUnderLoad(indexOnly, label, probes);
    await stack.db.putFaces({
      listIds: [label],
      descriptorVersion,
      faces: newcomers.ids.map((faceId, i) => ({
        faceId,
        vector: newcomers.vectors[i] ?? new Float32Array(0),
      })),
    });
    await stack.db.unlinkFaces({ listId: label, faceIds: gone });
    const [state] = await stack.db.listStates({ listIds: [label] });
    const minRevision = state?.revision ?? 0;
    const found = await indexOnly.match({
      label,
      references: newcomers.vectors.map((descriptor) => ({ descriptor })),
      limit: 1,
      minRevision,
    });
    expect(found.map((answer) => answer.matches[0]?.[0])).toEqual(newcomers.ids);
    const absent = await indexOnly.match({
      label,
      references: large.vectors.slice(-5).map((descriptor) => ({ descriptor })),
      limit: 10,
      minRevision,
    });
    for (const answer of absent) {
      expect(answer.revision).toBeGreaterThanOrEqual(minRevision);
      for (const [faceId] of answer.matches) expect(gone).not.toContain(faceId);
    }
    for (const matcher of servicesOf("indexed-matcher")) {
      const said = (line: RegExp) => matcher.process.waitForLine(line, { timeoutMs: 60_000 });
      // One round of refresh, or two where it looked between the two commits.
      await said(/Sync: 3->3, [01]->[01]/);
      await said(/Sync: [03]->[03], 1->1/);
      await said(new RegExp(`Refresh index for: ${label} has finished successfully`));
    }
    expect((await load.stop()).failures).toEqual([]);
  });

  withOneEngine("I4: a killed master is replaced once its lease has ended", async () => {
    const leads = (manager: Service) =>
      managerCall<{ is_master: boolean }>(manager, "GET", "/1/master").then(({ body }) => body.is_master);
    const managers = servicesOf("index-manager");
    const master = await eventually(
      "one leads",
      async () => managers[(await Promise.all(managers.map(leads))).indexOf(true)],
    );
    await stack.kill(master);
    await eventually("the other one leads", async () => (await leads(survivor())) || undefined);
  });

  test("I4, I7: a one-time task is built once, and its index swapped in under load without a failure", async () => {
    const load = matchUnderLoad(indexOnly, label, probes);
    const created = await managerCall<Task>(survivor(), "POST", "/1/tasks", { list_id: label });
    expect(created.status).toBe(201);
    const second = await managerCall<{ error_code: number; detail: string }>(survivor(), "POST", "/1/tasks", {
      list_id: label,
    });
    expect(second.status).toBe(409);
    expect(second.body.detail).toContain(created.body.task_id);
    expect(await untilTaskEnds(survivor(), created.body.task_id)).toMatchObject({ status: "success" });

    await eventually(
      "both matchers serve the new index",
      () =>
        indexOnly.labels().filter((served) => served.indexId === created.body.task_id).length === 2 ||
        undefined,
      { timeoutMs: 60_000 },
    );
    await eventually(
      "answers from the new index",
      () => (load.seen.get(created.body.task_id) ?? 0) > 20 || undefined,
    );
    expect((await load.stop()).failures).toEqual([]);
  });

  withOneEngine("I6, I8: a killed matcher's keys expire, and requests go on", async () => {
    const [victim] = servicesOf("indexed-matcher");
    if (!victim) throw new Error("no matcher");
    const load = matchUnderLoad(indexOnly, label, probes, 8);
    await stack.kill(victim);
    await untilServed(indexOnly, label, 1);
    const result = await load.stop();
    expect(result.failures).toEqual([]);
    await stack.start("indexed-matcher");
    await untilServed(indexOnly, label, 2);
  });

  withOneEngine(
    "I9: after a restart of Redis without its data, matches and builds go on without help",
    async () => {
      await stack.redis.restart();
      await eventually(
        "matches are answered again",
        async () => {
          const [answer] = await indexOnly
            .match({
              label,
              references: [{ descriptor: probes[0] ?? new Float32Array(0) }],
              timeoutMs: 2_000,
            })
            .catch(() => []);
          return answer;
        },
        { timeoutMs: 60_000 },
      );
      await untilServed(indexOnly, label, 2);
      const created = await eventually(
        "a task can be created",
        async () => {
          const answer = await managerCall<Task>(survivor(), "POST", "/1/tasks", {
            list_id: label,
            mode: "update",
          });
          return answer.status === 201 ? answer.body : undefined;
        },
        { timeoutMs: 60_000, intervalMs: 200 },
      );
      expect(await untilTaskEnds(survivor(), created.task_id)).toMatchObject({ status: "success" });
    },
  );

  test("I8: SIGTERM ends every service cleanly, and no label key stays", async () => {
    const watcher = await stack.plugin();
    for (const service of [...stack.services]) service.process.kill("SIGTERM");
    for (const service of [...stack.services]) expect(await service.process.exited, service.name).toBe(0);
    stack.services.length = 0;
    // Withdrawn: they would not expire for minutes.
    await eventually("no label is announced", () => watcher.labels().length === 0 || undefined);
  });
});
