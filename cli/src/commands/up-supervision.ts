import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import { isProcessRunning, startPostgres, startRedis } from "@lim/local-servers";
import { type Servers, type Service, startService } from "@lim/testkit";

export const databaseName = "lim";
/** What ends more often than this within the window is not started again: the stack stops with the reason. */
const maxRestarts = 5;
const restartWindowMs = 60_000;
const quotedLines = 10;
/** Between two looks whether Redis and Postgres run. */
const serverLookMs = 1_000;

interface Stack {
  servers: Servers;
  services: Service[];
  env: Readonly<Record<string, string>>;
  home: string;
  signal: AbortSignal;
}

/** Starts what ended by itself again, at its place, until the signal fires or something ends too often. */
export async function superviseAll(stack: Stack): Promise<void> {
  // Who gives up must also keep the others from being started again while everything is stopped.
  const givenUp = new AbortController();
  const over = { ...stack, signal: AbortSignal.any([stack.signal, givenUp.signal]) };
  const watches = [
    ...stack.services.map((_, slot) => superviseService(over, slot)),
    superviseServer(over, "redis"),
    superviseServer(over, "postgres"),
  ].map((watch) =>
    watch.catch((error: unknown) => {
      // What was being started when all is stopped fails, too: that is no reason.
      if (!over.signal.aborted) givenUp.abort(error);
    }),
  );
  await Promise.all(watches);
  givenUp.signal.throwIfAborted();
}

/** Counts ends; throws at the one that is too much. */
function restartLimit(name: string): (reason: string) => void {
  let endedMs: number[] = [];
  return (reason) => {
    const nowMs = performance.now();
    endedMs = [...endedMs.filter((ms) => nowMs - ms < restartWindowMs), nowMs];
    if (endedMs.length > maxRestarts)
      throw new LimError(
        "internal",
        `${name} ended ${endedMs.length} times within ${restartWindowMs / 1000} s, last with ${reason}`,
      );
  };
}

async function superviseService({ servers, services, env, signal }: Stack, slot: number): Promise<void> {
  const stopped = new Promise<"stopped">((resolve) => {
    if (signal.aborted) resolve("stopped");
    else signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  const countEnd = restartLimit(services[slot]?.name ?? "");
  for (;;) {
    const service = services[slot];
    if (service === undefined) return;
    const how = await Promise.race([service.process.exited, stopped]);
    if (signal.aborted) return;
    const { name, kind, url, process } = service;
    const lastWords = process.lines.slice(-quotedLines).join("\n");
    countEnd(`${how}:\n${lastWords}`);
    console.error(`${name} ended (${how}), its last lines:\n${lastWords}`);
    await servers.ledger.forget(process.pid);
    const again = await startService(servers, { kind, name, port: Number(new URL(url).port), env });
    services[slot] = again;
    console.error(`${name} runs again (process ${again.process.pid})`);
  }
}

/** Those that were started here; a server of the settings is its owner's business. */
async function superviseServer({ servers, home, signal }: Stack, name: "redis" | "postgres"): Promise<void> {
  const countEnd = restartLimit(name);
  while (!signal.aborted) {
    const [pid] = servers[name].pids;
    if (pid === undefined) return;
    await sleep(serverLookMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted || (await isProcessRunning(pid))) continue;
    const dir = join(home, name);
    countEnd(`its log in ${dir}`);
    console.error(`${name} ended (process ${pid}); its log is in ${dir}`);
    await servers.ledger.forget(pid);
    const place = { dir, ledgerDir: home, port: Number(new URL(servers[name].url).port), signal };
    servers[name] =
      name === "redis" ? await startRedis(place) : await startPostgres({ ...place, database: databaseName });
    console.error(`${name} runs again (process ${servers[name].pids[0]})`);
  }
}
