import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { defaults, type EngineName } from "@lim/contracts";
import {
  type DoctorReport,
  type Finding,
  fail,
  placeOf,
  skip,
  summaryOf,
  within,
  withoutSecrets,
} from "./finding.ts";
import { judgeClocks, judgeNode, probeEngines, probeTemporary } from "./machine.ts";
import { type PortUse, probeManager, probePorts } from "./ports.ts";
import { probePostgres } from "./postgres.ts";
import { probeRedis } from "./redis.ts";
import { probeStorage } from "./storage.ts";

export interface DoctorRun {
  redisUrl: string | undefined;
  databaseUrl: string | undefined;
  storageRoot: string | undefined;
  /** Whether the servers are those of a `lim up` that runs here. */
  isOwnStack: boolean;
  /** Where `lim up` makes a storage where none is set. */
  home: string;
  managerUrl: string;
  apiToken: string | undefined;
  dim: number;
  engine: EngineName;
  ports: readonly PortUse[];
  /** Of each probe; all but the storage's run at once. */
  timeoutMs: number;
  strict: boolean;
  signal: AbortSignal;
}

const defaultManagerUrl = `http://127.0.0.1:${defaults.managerPort}`;

/** Looks at all that LIM rests on. Changes nothing that stays; ends within three timeouts, whatever hangs. */
export async function runDoctor(run: DoctorRun): Promise<DoctorReport> {
  const startedMs = performance.now();
  const { timeoutMs, signal } = run;
  const [redis, postgres, engines, temporary, ports, manager] = await Promise.all([
    askRedis(run),
    askPostgres(run),
    within(timeoutMs, {
      check: "engine",
      remedy: "try again with --timeout 60000 where the machine is busy",
      run: () => probeEngines(run.engine),
    }),
    within(timeoutMs, {
      check: "tmpdir",
      remedy: "let TMPDIR name a folder of a local disk",
      run: () => probeTemporary(),
    }),
    within(2 * timeoutMs, {
      check: "ports",
      remedy: "see what holds them",
      run: () => probePorts(run.ports, timeoutMs),
    }),
    within(2 * timeoutMs, {
      check: "manager",
      remedy: "see its log",
      run: () =>
        probeManager(
          { url: run.managerUrl, token: run.apiToken, isSet: run.managerUrl !== defaultManagerUrl },
          timeoutMs,
        ),
    }),
  ]);
  signal.throwIfAborted();
  const storage = await askStorage(run, postgres.largestList);
  signal.throwIfAborted();
  const clocks = judgeClocks({ redisMs: redis.localAheadMs, postgresMs: postgres.localAheadMs });
  const findings = withoutSecrets(
    [
      judgeNode(),
      ...redis.findings,
      ...postgres.findings,
      ...clocks,
      ...storage,
      ...temporary,
      ...engines,
      ...manager,
      ...ports,
    ],
    [run.redisUrl, run.databaseUrl],
    [run.apiToken],
  );
  const summary = summaryOf(findings);
  return {
    report_version: 1,
    time: new Date().toISOString(),
    findings,
    summary,
    duration_ms: Math.round(performance.now() - startedMs),
    exit_code: summary.fail > 0 || (run.strict && summary.warn > 0) ? 1 : 0,
  };
}

async function askRedis({ redisUrl, isOwnStack, timeoutMs, signal }: DoctorRun) {
  let localAheadMs: number | undefined;
  const findings = await within(timeoutMs, {
    check: "redis",
    ...(redisUrl === undefined ? {} : { subject: placeOf(redisUrl) }),
    remedy: "see whether Redis runs and whether a firewall lies between",
    run: async () => {
      if (redisUrl === undefined) return [await ownRedis()];
      const probe = await probeRedis(redisUrl, { isOwnStack, signal });
      localAheadMs = probe.localAheadMs;
      return probe.findings;
    },
  });
  return { findings, localAheadMs };
}

/** Without a setting `lim up` starts one, where it finds one. */
async function ownRedis(): Promise<Finding> {
  for (const name of ["redis-server", "valkey-server"])
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      const path = join(folder, name);
      if (
        folder !== "" &&
        (await access(path, constants.X_OK).then(
          () => true,
          () => false,
        ))
      )
        return skip("redis", `REDIS_URL is not set: lim up starts ${path}`);
    }
  return fail(
    "redis",
    "REDIS_URL is not set, and there is no redis-server or valkey-server on PATH for lim up to start",
    "install one (Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis), or set REDIS_URL",
  );
}

async function askPostgres({ databaseUrl, timeoutMs }: DoctorRun) {
  let localAheadMs: number | undefined;
  let largestList: number | undefined;
  const findings = await within(timeoutMs, {
    check: "postgres",
    ...(databaseUrl === undefined ? {} : { subject: placeOf(databaseUrl) }),
    remedy: "see whether Postgres runs and whether a firewall lies between",
    run: async () => {
      if (databaseUrl === undefined)
        return [skip("postgres", "DATABASE_URL is not set: lim up starts a Postgres of its own")];
      const probe = await probePostgres(databaseUrl, timeoutMs);
      localAheadMs = probe.report?.clock.localAheadMs;
      largestList = probe.report?.largestList;
      return probe.findings;
    },
  });
  return { findings, localAheadMs, largestList };
}

function askStorage(
  { storageRoot, home, dim, engine, timeoutMs }: DoctorRun,
  largestList: number | undefined,
) {
  const root = storageRoot ?? join(home, "index-storage");
  return within(timeoutMs, {
    check: "storage",
    subject: root,
    remedy: "see whether the file system of LIM_STORAGE_ROOT answers (a network mount that is away?)",
    run: () =>
      probeStorage({
        root,
        isSet: storageRoot !== undefined,
        dim,
        engine,
        largestList,
      }),
  });
}
