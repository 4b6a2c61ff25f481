import { fileURLToPath } from "node:url";
import { defaults } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterEach, expect, it } from "vitest";
import { type Child, startChild } from "../src/child-process.ts";
import { createSpares, type Spares } from "../src/spares.ts";

const module = fileURLToPath(new URL("./fixtures/waiting-child.mjs", import.meta.url));
const { engine } = defaults;

const started: Child[] = [];
let spares: Spares;
afterEach(async () => {
  spares.close();
  for (const child of started) child.kill();
  await Promise.all(started.map(({ gone }) => gone));
  started.length = 0;
});

function openSpares(over: { enabled?: boolean; module?: string } = {}): Spares {
  spares = createSpares({
    enabled: over.enabled ?? true,
    idleMs: 0,
    restartMs: 0,
    start(stage) {
      const child = startChild(stage, { module: over.module ?? module });
      started.push(child);
      return child;
    },
  });
  return spares;
}
const pidsOf = (count: number) =>
  eventually(`${count} spares`, async () => {
    const pids = spares.pids();
    return pids.length === count ? pids : undefined;
  });

it("a spare is taken once, and others come only when the build is over", async () => {
  const { take, fill } = openSpares();
  fill(engine);
  const pids = await pidsOf(2);
  const taken = [take("build"), take("publish")];
  expect(taken.map(({ pid, stage }) => [pid, stage])).toEqual([
    [pids[0], "build"],
    [pids[1], "publish"],
  ]);
  expect(spares.pids()).toEqual([]);
  const another = take("build");
  expect(pids).not.toContain(another.pid);
  for (const child of [...taken, another]) child.kill();
  await Promise.all(started.map(({ gone }) => gone));
  expect(started.length).toBe(3);
  fill(engine);
  for (const pid of await pidsOf(2)) expect(pids).not.toContain(pid);
});

it("a spare that dies is replaced, and a dead one is never taken", async () => {
  openSpares().fill(engine);
  const [first] = await pidsOf(2);
  process.kill(first ?? 0, "SIGKILL");
  await eventually("another one", async () => {
    const pids = spares.pids();
    return pids.length === 2 && !pids.includes(first ?? 0) ? true : undefined;
  });
  expect(spares.take("build").pid).not.toBe(first);
});

it("spares that die at once are given up, until the next build is over", async () => {
  openSpares({ module: fileURLToPath(new URL("./fixtures/none.mjs", import.meta.url)) }).fill(engine);
  await eventually("five deaths", async () => {
    await Promise.all(started.map(({ gone }) => gone));
    return started.length >= 5 && spares.pids().length === 0 ? true : undefined;
  });
  const before = started.length;
  expect(before).toBeLessThanOrEqual(6);
  spares.fill(engine);
  await eventually("a new try", async () => (started.length > before ? true : undefined));
}, 30_000);

it("without spares each process is started when it is taken; closed ones end", async () => {
  openSpares({ enabled: false }).fill(engine);
  expect(spares.pids()).toEqual([]);
  expect(spares.take("build").pid).toBe(started[0]?.pid);
  openSpares().fill(engine);
  const pids = await pidsOf(2);
  spares.close();
  // A build that is drained still needs its second process: not one that is being killed.
  expect(pids).not.toContain(spares.take("publish").pid);
  started.at(-1)?.kill();
  await Promise.all(started.slice(1).map(({ gone }) => gone));
  spares.fill(engine);
  expect(spares.pids()).toEqual([]);
});
