import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { type CampaignResult, minimumOf, reportOf, runCampaign, troubles } from "./campaign.ts";
import type { PoolName } from "./plan.ts";
import type { World } from "./world.ts";

/** A service that refuses everything, correctly in form; a test changes one thing about it. */
type Service = (request: IncomingMessage, response: ServerResponse, requestId: string) => void;

const badInput = { error_code: 26001, desc: "Input failed validation", detail: "no", link: "/docs" };
const requestId = "1700000000,5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11";
const refuse: Service = (request, response, id) => {
  response.writeHead(400, { "content-type": "application/json", "luna-request-id": id });
  response.end(request.method === "HEAD" ? undefined : JSON.stringify(badInput));
};

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** `state` is what the world calls its tasks and indexes. */
async function campaignAgainst(
  service: Service,
  state: () => string[],
  requests = 200,
): Promise<CampaignResult> {
  const server = createServer((request, response) => {
    const sent = request.headers["luna-request-id"];
    const isWellFormed = typeof sent === "string" && /^\d{1,12},[0-9a-f-]{36}$/i.test(sent);
    request.resume().on("end", () => service(request, response, isWellFormed ? sent : requestId));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const world: Pick<
    World,
    "url" | "token" | "pools" | "secrets" | "learn" | "replenish" | "hold" | "resume" | "fingerprint"
  > & {
    process: Pick<World["process"], "lines">;
  } = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: "a token of this test",
    process: { lines: [] },
    pools: new Map<PoolName, string[]>(),
    secrets: [],
    learn() {},
    replenish: async () => {},
    hold: async () => {},
    resume() {},
    fingerprint: async () => state(),
  };
  return runCampaign(world as World, {
    seed: 1,
    requests,
    durationMs: 60_000,
    concurrency: 4,
    shrinkRuns: 5,
  });
}

const rulesOf = ({ findings }: CampaignResult) => new Set(findings.map(({ violation }) => violation.rule));

it("a service that refuses what is documented is found out, with a smallest request", async () => {
  const result = await campaignAgainst(refuse, () => ["task 1"]);
  expect(rulesOf(result)).toContain("documented, refused");
  expect(rulesOf(result)).not.toContain("changed something");
  expect(result.findings.every((finding) => finding.curl.includes("$LIM_URL"))).toBe(true);
  expect(result.findings.some((finding) => finding.smallest !== undefined)).toBe(true);
  expect(reportOf(result, 1)).toContain("documented, refused: ");
});

it("I11: a service that refuses a removal and removes all the same is found out, and the request is named", async () => {
  let removals = 0;
  const result = await campaignAgainst(
    (request, response, id) => {
      if (request.method === "DELETE") removals++;
      refuse(request, response, id);
    },
    () => [`task after ${removals} removals`],
  );
  const [found] = result.findings.filter(({ violation }) => violation.rule === "changed something");
  expect(found?.curl).toContain("DELETE");
  expect(found?.violation.detail).toMatch(/gone: task after \d+ removals; new: task after \d+ removals/);
});

it("a service that does not answer is found out, and does not hold up the campaign", async () => {
  const result = await campaignAgainst(
    (request, response, id) => {
      if (request.url?.startsWith("/livez")) request.socket.destroy();
      else refuse(request, response, id);
    },
    () => [],
  );
  expect(rulesOf(result)).toContain("no answer");
  expect(result.done).toBeGreaterThanOrEqual(150);
});

it("failures in the manager's log are faults, whatever it answered", () => {
  const process = { lines: ['{"level":30,"msg":"fine"}', '{"level":50,"msg":"request failed"}'] };
  expect(troubles({ process: process as unknown as World["process"] })).toEqual([
    'the manager\'s log has: {"level":50,"msg":"request failed"}',
  ]);
});

it("the least number of requests grows with the campaign", () => {
  expect(minimumOf(600, 19)).toEqual({ accepted: 3, refused: 3 });
  expect(minimumOf(20_000, 19)).toEqual({ accepted: 125, refused: 125 });
});
