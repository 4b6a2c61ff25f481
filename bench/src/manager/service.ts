import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { openProcessLedger } from "@lim/local-servers";
import { type Servers, type Service, startService } from "@lim/testkit";

const mebibyte = 2 ** 20;

export interface ManagerServers {
  /** Folder of this run. */
  dir: string;
  redisUrl: string;
  postgresUrl: string;
}

/** A real manager process. What `closers` gets ends it. */
export async function startManager(
  servers: ManagerServers,
  env: Readonly<Record<string, string>>,
  closers: (() => Promise<unknown>)[],
): Promise<Service> {
  const ledgerDir = join(servers.dir, "services");
  await mkdir(ledgerDir, { recursive: true });
  const found = (url: string) => ({ url, pids: [], stop: async () => undefined });
  const all: Servers = {
    redis: found(servers.redisUrl),
    postgres: found(servers.postgresUrl),
    ledger: await openProcessLedger(ledgerDir),
    ledgerDir,
  };
  const service = await startService(all, {
    kind: "index-manager",
    name: "index-manager",
    port: 0,
    env: {
      // Far off: what is measured has the process to itself.
      LIM_RETENTION_PERIOD_MS: "86400000",
      LIM_TASK_RETENTION_S: "315360000",
      LIM_KEEP_TASKS: "100000",
      LIM_API_TOKEN: "",
      ...env,
    },
  });
  closers.push(async () => {
    await service.process.stop();
    await all.ledger.forget(service.process.pid);
  });
  return service;
}

/** Resident memory now, and its peak where the system tells it (Linux). */
export async function memoryOf(service: Service): Promise<{ rssMiB: number | null; peakMiB: number | null }> {
  const status = await readFile(`/proc/${service.process.pid}/status`, "utf8").catch(() => "");
  const kib = (name: string) => {
    const value = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1];
    return value === undefined ? null : (Number(value) * 1024) / mebibyte;
  };
  return { rssMiB: kib("VmRSS"), peakMiB: kib("VmHWM") };
}
