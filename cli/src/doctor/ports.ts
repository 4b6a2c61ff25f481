import { createServer } from "node:net";
import { healthResponseSchema, versionResponseSchema } from "@lim/contracts";
import { type Finding, fail, ok, reasonOf, skip, warn } from "./finding.ts";

export interface PortUse {
  service: string;
  port: number;
}

/** Whether the ports that `lim up` takes are free, or already a LIM service's. */
export async function probePorts(uses: readonly PortUse[], timeoutMs: number): Promise<Finding[]> {
  const states = await Promise.all(
    uses.map(async (use) => ({ ...use, state: await stateOf(use, timeoutMs) })),
  );
  const free = states.filter(({ state }) => state === "free").map(({ port }) => port);
  const healthy = states.flatMap(({ port, service, state }) =>
    state !== "free" && state.status === "ok" ? [`${port} (${service})`] : [],
  );
  const texts = [
    ...(free.length > 0 ? [`free: ${free.join(", ")}`] : []),
    ...(healthy.length > 0 ? [`held by healthy LIM services: ${healthy.join(", ")}`] : []),
  ];
  return [
    ...(texts.length > 0 ? [ok("ports", texts.join("; "))] : []),
    ...states.flatMap(({ state }) => (state === "free" || state.status === "ok" ? [] : [state])),
  ];
}

async function stateOf({ service, port }: PortUse, timeoutMs: number): Promise<"free" | Finding> {
  const refusal = await listenRefusal(port);
  if (refusal === undefined) return "free";
  const check = `ports.${port}`;
  if (refusal.code !== "EADDRINUSE")
    return warn(
      check,
      `nobody may listen on port ${port}: ${refusal.message}`,
      `another port for the ${service}`,
    );
  const health = await serviceAt(`http://127.0.0.1:${port}`, timeoutMs);
  if (health !== undefined) return judgeService(check, `port ${port}`, health);
  return warn(
    check,
    `port ${port} (${service}) is held by a program that is no LIM service`,
    `end it, or lim up --free-ports, or another ${portVariable(service)}`,
  );
}

const portVariable = (service: string) =>
  `LIM_${{ "index-manager": "MANAGER", indexer: "INDEXER" }[service] ?? "MATCHER"}_PORT`;

function listenRefusal(port: number): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", resolve);
    server.listen({ port, host: "0.0.0.0", exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

export interface ServiceHealth {
  service: string;
  version: string;
  /** Reasons by component, of those that fail. */
  failing: [string, string][];
}

/** What answers there as a LIM service does; undefined where nothing of that kind answers in time. */
async function serviceAt(origin: string, timeoutMs: number): Promise<ServiceHealth | undefined> {
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    const { components } = healthResponseSchema.parse(
      await (await fetch(`${origin}/healthcheck`, { signal })).json(),
    );
    // It may ask for a token, which is not sent to whom nobody knows.
    const version = await fetch(`${origin}/version`, { signal })
      .then(async (response) => versionResponseSchema.parse(await response.json()))
      .catch(() => ({ service: "a LIM service", version: "" }));
    return { ...version, failing: Object.entries(components).filter(([, reason]) => reason !== "ok") };
  } catch {
    return undefined;
  }
}

function judgeService(check: string, place: string, { service, version, failing }: ServiceHealth): Finding {
  const what = `${place}: ${service} ${version}`.trim();
  if (failing.length === 0) return ok(check, `${what} runs and is healthy`);
  return warn(
    check,
    `${what} runs, but is not healthy: ${failing.map(([name]) => name).join(", ")}`,
    `mend what it names, then it goes on by itself; the reasons are at its /healthcheck`,
  );
}

/** The Index Manager that `lim tasks` and the like ask. `isSet`: its address is a setting, so it must be there. */
export async function probeManager(
  question: { url: string; token: string | undefined; isSet: boolean },
  timeoutMs: number,
): Promise<Finding[]> {
  const origin = question.url.replace(/\/+$/, "");
  const health = await serviceAt(origin, timeoutMs);
  if (health === undefined) {
    const text = `no Index Manager answers at ${origin}`;
    return [
      question.isSet
        ? fail("manager", text, "start it, or mend LIM_MANAGER_URL")
        : skip("manager", `${text}: lim up starts one`),
    ];
  }
  const finding = judgeService("manager", origin, health);
  const refusal = await tokenRefusal(origin, question.token, timeoutMs);
  return refusal === undefined ? [finding] : [finding, refusal];
}

async function tokenRefusal(
  origin: string,
  token: string | undefined,
  timeoutMs: number,
): Promise<Finding | undefined> {
  try {
    const response = await fetch(`${origin}/1/master`, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(timeoutMs),
    });
    await response.body?.cancel();
    if (response.status !== 401) return undefined;
    return fail(
      "manager.token",
      token === undefined ? "it asks for a token" : "it refuses the token",
      "set LIM_API_TOKEN to the value that the services were started with",
    );
  } catch (thrown) {
    return warn("manager.token", `it did not answer: ${reasonOf(thrown)}`, "try again; see its log");
  }
}
