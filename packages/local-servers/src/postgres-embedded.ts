import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import { type Account, unprivilegedAccount } from "./account.ts";
import { freePort } from "./free-port.ts";
import { openProcessLedger, reapLeftovers } from "./ledger.ts";
import type { LocalServer } from "./local-server.ts";
import type { PostgresOptions } from "./postgres.ts";
import { type PostgresBinaries, postgresBinaries } from "./postgres-binaries.ts";
import { postgresHome } from "./postgres-home.ts";
import { commandLineOf, processIdentity } from "./process-identity.ts";
import { logSize, logTail, type ServerProcess, spawnServer, throwIfAborted } from "./spawn-server.ts";
import { connectRaw, ensureDatabase, errorCode, withDatabase } from "./sql.ts";

/** Recovery after a crash replays the log first, so this is generous. */
const startLimitMs = 120_000;
const initLimitMs = 120_000;
const pollMs = 25;
/** Tries when the port was taken meanwhile, or processes of a killed server still hold its shared memory. */
const startTries = 20;
const retryDelayMs = 250;
const superuser = "postgres";
const dataName = "postgres-data";

interface Place {
  home: string;
  dataDir: string;
  logPath: string;
  account: Account | undefined;
  binaries: PostgresBinaries;
}

export async function startEmbeddedPostgres(options: PostgresOptions): Promise<LocalServer> {
  const { dir } = options;
  const account = await unprivilegedAccount(join(dir, dataName));
  const home = await postgresHome(dir, account);
  const place: Place = {
    home,
    dataDir: join(home, dataName),
    logPath: join(dir, "postgres.log"),
    account,
    binaries: await postgresBinaries(account, home),
  };
  await reapLeftovers(options.ledgerDir ?? dir);
  const password = await prepareData(place, options);
  await clearStalePidFile(place.dataDir);
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(options.signal, "Postgres");
    const started = await startOnce(place, password, options);
    if (typeof started !== "string") return started;
    const retryable =
      /shared memory block/.test(started) ||
      (options.port === undefined && /address already in use/i.test(started));
    if (!retryable || attempt === startTries)
      throw new LimError("bad_settings", `Postgres did not start; end of ${place.logPath}:\n${started}`);
    await sleep(retryDelayMs);
  }
}

/** Makes the data folder where there is none; resolves with the superuser's password. */
async function prepareData(place: Place, options: PostgresOptions): Promise<string> {
  const { home, dataDir, binaries } = place;
  const passwordPath = join(home, "postgres-password");
  const made = await readIfThere(join(dataDir, "PG_VERSION"));
  const password = ((await readIfThere(passwordPath)) ?? "").trim();
  if (made !== undefined) {
    if (made.trim() !== binaries.majorVersion)
      throw new LimError(
        "bad_settings",
        `${dataDir} was made by Postgres ${made.trim()}, this is ${binaries.majorVersion}: dump and restore it, ` +
          "or delete the folder to begin with an empty database",
      );
    if (password === "")
      throw new LimError(
        "bad_settings",
        `${passwordPath} is missing or empty: put it back, or delete ${dataDir} to begin with an empty database`,
      );
    return password;
  }
  await removeBrokenOff(home);
  const fresh = randomBytes(24).toString("base64url");
  await writeFile(`${passwordPath}.draft`, fresh, { mode: 0o600 });
  await initialise(place, fresh, { durable: options.settings?.fsync !== "off", signal: options.signal });
  await rename(`${passwordPath}.draft`, passwordPath);
  await rename(join(home, `postgres-init-${process.pid}`, "data"), dataDir);
  await rm(join(home, `postgres-init-${process.pid}`), { recursive: true, force: true });
  return fresh;
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw new LimError(
      "bad_settings",
      `${path} cannot be read (${errorCode(error)}): it was made by another user; start as that user, ` +
        "or choose another folder",
      { cause: error },
    );
  }
}

const draftName = /^postgres-init-(\d+)$/;

/** What initdb left behind where its run was killed; that of a live run is left alone. */
async function removeBrokenOff(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    const owner = Number(draftName.exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(owner) || (owner !== process.pid && (await processIdentity(owner)) !== undefined))
      continue;
    await rm(join(home, name), { recursive: true, force: true, maxRetries: 5 });
  }
}

/** initdb in a folder of its own, renamed by the caller once whole: what a failed or killed run leaves is never used. */
async function initialise(
  place: Place,
  password: string,
  how: { durable: boolean; signal: AbortSignal | undefined },
): Promise<void> {
  const { home, account, binaries } = place;
  const draft = join(home, `postgres-init-${process.pid}`);
  const passwordFile = join(draft, "password");
  await mkdir(draft, { mode: 0o700 });
  try {
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (account) for (const path of [draft, passwordFile]) await chown(path, account.uid, account.gid);
    await new Promise<void>((done, fail) => {
      const args = [
        ...["-D", join(draft, "data"), "-U", superuser, `--pwfile=${passwordFile}`, "--auth=scram-sha-256"],
        ...["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
        ...["--no-instructions", ...(how.durable ? [] : ["--no-sync"])],
      ];
      const options = {
        cwd: draft,
        env: { PATH: process.env.PATH ?? "", LC_ALL: "C" },
        timeout: initLimitMs,
        ...(account ? { uid: account.uid, gid: account.gid } : {}),
      };
      const child = execFile(binaries.initdb, args, options, (error, stdout, stderr) => {
        how.signal?.removeEventListener("abort", cancel);
        if (how.signal?.aborted) fail(new LimError("aborted", "initdb was cancelled"));
        else if (error)
          fail(new LimError("bad_settings", `initdb failed: ${stderr || stdout || error.message}`));
        else done();
      });
      // Not execFile's own signal, which reports before the child has ended: a cancelled initdb removes its folder, and
      // would remove that of the next try.
      const cancel = () => child.kill("SIGTERM");
      if (how.signal?.aborted) cancel();
      else how.signal?.addEventListener("abort", cancel, { once: true });
    });
  } catch (error) {
    await rm(draft, { recursive: true, force: true, maxRetries: 10 });
    throw error;
  }
}

/**
 * Postgres removes a dead server's pid file by itself, unless the id now belongs to another process of the same user;
 * a live server on the folder is somebody else's run.
 */
async function clearStalePidFile(dataDir: string): Promise<void> {
  const path = join(dataDir, "postmaster.pid");
  const pid = Number((await readFile(path, "utf8").catch(() => "")).split("\n")[0]);
  if (!Number.isSafeInteger(pid) || pid < 1 || (await processIdentity(pid)) === undefined) return;
  if ((await commandLineOf(pid)).includes(dataDir))
    throw new LimError(
      "bad_settings",
      `another run's Postgres (process ${pid}) is using ${dataDir}: stop that run first, or choose another folder`,
    );
  await rm(path, { force: true });
}

/** A running server, or the end of the log of one that died at its start. */
async function startOnce(
  place: Place,
  password: string,
  options: PostgresOptions,
): Promise<LocalServer | string> {
  const port = options.port ?? (await freePort());
  const ledger = await openProcessLedger(options.ledgerDir ?? options.dir);
  const logStart = await logSize(place.logPath);
  const settings = { listen_addresses: "127.0.0.1", unix_socket_directories: "", ...options.settings };
  const server = await spawnServer(
    {
      name: "postgres",
      command: place.binaries.postgres,
      args: [
        ...["-D", place.dataDir, "-p", String(port)],
        ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      cwd: place.home,
      logPath: place.logPath,
      account: place.account ? { uid: place.account.uid, gid: place.account.gid } : undefined,
      // Fast shutdown ends sessions in order; immediate shutdown leaves recovery to the next start.
      stopSignals: [
        { signal: "SIGINT", limitMs: 15_000 },
        { signal: "SIGQUIT", limitMs: 5_000 },
      ],
    },
    ledger,
  );
  const adminUrl = `postgres://${superuser}:${password}@127.0.0.1:${port}/postgres`;
  try {
    const fault = await waitForSessions(adminUrl, server, options.signal);
    if (fault !== undefined) {
      await server.stop();
      return `${await logTail(place.logPath, logStart)}\n(${fault})`;
    }
    await ensureDatabase(adminUrl, options.database);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { url: withDatabase(adminUrl, options.database), pids: [server.pid], stop: () => server.stop() };
}

/** Why no session could be had; undefined once one was. */
async function waitForSessions(
  adminUrl: string,
  server: ServerProcess,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const deadline = performance.now() + startLimitMs;
  for (;;) {
    throwIfAborted(signal, "Postgres");
    const ended = server.ended();
    if (ended !== undefined) return ended;
    try {
      await (await connectRaw(adminUrl)).close();
      return undefined;
    } catch (error) {
      if (performance.now() > deadline)
        return `no session within ${startLimitMs} ms: ${error instanceof Error ? error.message : String(error)}`;
    }
    await sleep(pollMs);
  }
}
