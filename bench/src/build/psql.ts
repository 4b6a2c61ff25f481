// psql, where the system has it: the embedded Postgres brings none.
import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";

/** Where packages of Postgres put the program itself; what is on the PATH may be a script around it. */
const places = [
  "/usr/lib/postgresql/*/bin/psql",
  "/usr/pgsql-*/bin/psql",
  "/opt/homebrew/opt/libpq/bin/psql",
  "/opt/homebrew/opt/postgresql@*/bin/psql",
];

/** Undefined where there is none. Throws where the named one cannot be run. */
export async function findPsql(named: string | undefined): Promise<string | undefined> {
  if (named !== undefined) {
    await access(named, constants.X_OK);
    return named;
  }
  const onPath = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "psql"));
  for (const path of [...globSync(places).toSorted().toReversed(), ...onPath])
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  return undefined;
}

export interface PsqlFigures {
  /** From its start to its end. */
  seconds: number;
  /** Bytes that it wrote, where they were counted. */
  bytes: number | undefined;
}

/** Runs a statement, several times in one connection. What it writes is dropped by the system, or counted here, which takes a processor of its own. */
export async function runPsql(
  psql: string,
  options: { databaseUrl: string; statement: string; times: number; count: boolean; signal: AbortSignal },
): Promise<PsqlFigures> {
  const { databaseUrl, statement, times, count, signal } = options;
  const commands = Array.from({ length: times }, () => ["-c", statement]).flat();
  const { hostname, port, username, password, pathname } = new URL(databaseUrl);
  const startedMs = performance.now();
  const child = spawn(psql, ["-X", "-q", "-v", "ON_ERROR_STOP=1", ...commands], {
    env: {
      PATH: process.env.PATH,
      PGHOST: hostname,
      PGPORT: port || "5432",
      PGUSER: decodeURIComponent(username),
      // Not among the arguments, which every account of the machine can read.
      PGPASSWORD: decodeURIComponent(password),
      PGDATABASE: decodeURIComponent(pathname.slice(1)),
    },
    stdio: ["ignore", count ? "pipe" : "ignore", "pipe"],
    signal,
    killSignal: "SIGKILL",
  });
  let bytes = 0;
  let errors = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-2_000);
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new Error(`psql ended with ${code}: ${errors}`);
  return { seconds: (performance.now() - startedMs) / 1000, bytes: count ? bytes : undefined };
}
