import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connectSql, withDatabase } from "@lim/local-servers";
import { createTestDatabase, startTestRedis, type TestRedis } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DoctorReport, Finding } from "../src/doctor/finding.ts";

const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const password = "geheim-4711";
let dir: string;
let redis: TestRedis;
let database: Awaited<ReturnType<typeof createTestDatabase>>;
let silent: Server;
const sockets = new Set<Socket>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-doctor-"));
  await mkdir(join(dir, "storage", ".staging"), { recursive: true });
  [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
  // Takes connections and says nothing, as a host does that hangs.
  silent = createServer((socket) => sockets.add(socket)).listen(0, "127.0.0.1");
  await once(silent, "listening");
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  silent?.close();
  await Promise.allSettled([redis?.stop(), database?.drop()]);
  await rm(dir, { recursive: true, force: true, maxRetries: 5 });
});

const silentHost = () => `127.0.0.1:${(silent.address() as { port: number }).port}`;

async function doctor(env: Record<string, string>, args: readonly string[] = ["--timeout", "60000"]) {
  const child = spawn(process.execPath, [main, "doctor", "--json", ...args], {
    env: {
      ...process.env,
      REDIS_URL: redis.url,
      DATABASE_URL: database.url,
      LIM_STORAGE_ROOT: join(dir, "storage"),
      LIM_MANAGER_URL: "",
      LIM_API_TOKEN: "",
      LIM_HOME: join(dir, "home"),
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => {
      output += chunk;
    });
  const [code] = (await once(child, "close")) as [number | null];
  const report = JSON.parse(output) as DoctorReport;
  const statusOf = (check: string) => report.findings.find((finding) => finding.check === check)?.status;
  const remedied = (status: Finding["status"]) =>
    report.findings
      .filter((finding) => finding.status === status && finding.remedy !== "")
      .map(({ check }) => check)
      // Of the machine that the test runs on.
      .filter((check) => !/^(ports|tmpdir|storage\.space|engine|postgres\.connections)/.test(check));
  return { code, output, report, statusOf, remedied };
}

test("servers and a storage that are as they should be", async () => {
  const { report, statusOf, remedied } = await doctor({});
  expect(remedied("fail"), JSON.stringify(report.findings)).toEqual([]);
  expect(remedied("warn")).toEqual(["redis.persistence"]);
  for (const check of ["redis", "redis.policy", "postgres", "postgres.migrations", "clock", "storage.rename"])
    expect(statusOf(check), check).toBe("ok");
  expect(statusOf("engine.hnsw")).toBe("ok");
  expect(await readdir(join(dir, "storage"))).toEqual([".staging"]);
});

test("a migration that is missing, a wrong password, a database and a server that are not there", async () => {
  const sql = await connectSql(database.url);
  const [newest] = await sql.query("SELECT max(name) AS name FROM faces.schema_migration");
  await sql.query("DELETE FROM faces.schema_migration WHERE name = $1", [newest?.name]);
  await sql.close();
  const behind = await doctor({});
  expect(behind.code).toBe(1);
  expect(behind.remedied("fail")).toEqual(["postgres.migrations"]);
  expect(behind.output).toContain(`not migrated: ${newest?.name} missing`);

  const wrong = new URL(database.url);
  wrong.password = password;
  const texts = await Promise.all(
    [wrong.href, withDatabase(database.url, "no_such"), "postgres://127.0.0.1:1/x"].map(async (url) => {
      const { code, report, output } = await doctor({ DATABASE_URL: url });
      expect(code).toBe(1);
      expect(output).not.toContain(password);
      return report.findings.find(({ check }) => check === "postgres")?.text;
    }),
  );
  expect(texts[0]).toContain("refuses the user or password");
  expect(texts[1]).toContain("3D000");
  expect(texts[2]).toContain("nothing listens");
});

test("Redis with a password, with eviction, full, and gone", async () => {
  const admin = redis.url.replace("//", `//:${password}@`);
  await redisConfig(redis.url, "requirepass", password);
  const without = await doctor({});
  expect(without.statusOf("redis")).toBe("fail");
  expect(without.output).toContain("wants a password");
  const wrong = await doctor({ REDIS_URL: redis.url.replace("//", `//:${password}x@`) });
  expect(wrong.output).toContain("refuses the user or password");
  expect(wrong.output).not.toContain(password);

  await redisConfig(admin, "maxmemory-policy", "allkeys-lru");
  expect((await doctor({ REDIS_URL: admin })).remedied("fail")).toContain("redis.policy");
  await redisConfig(admin, "maxmemory-policy", "noeviction");
  await redisConfig(admin, "maxmemory", "1");
  const full = await doctor({ REDIS_URL: admin });
  expect(full.remedied("fail")).toContain("redis.write");
  expect(full.statusOf("redis.memory")).toBe("warn");

  await redis.stop();
  const gone = await doctor({});
  expect(gone.code).toBe(1);
  expect(gone.output).toContain("nothing listens at redis://");
});

/** Over a connection of its own, with the credentials of the URL. */
async function redisConfig(url: string, name: string, value: string): Promise<void> {
  const { hostname, port, password: secret } = new URL(url);
  const socket = connect(Number(port), hostname);
  const words = [...(secret ? [["AUTH", secret]] : []), ["CONFIG", "SET", name, value]];
  for (const command of words) {
    socket.write(`*${command.length}\r\n${command.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`);
    const [reply] = (await once(socket, "data")) as [Buffer];
    expect(reply.toString()).toBe("+OK\r\n");
  }
  socket.destroy();
}

test("hosts that hang cost each probe its time, and no more", async () => {
  const secret = `u:${password}@${silentHost()}`;
  const { code, output, report, statusOf } = await doctor(
    {
      REDIS_URL: `redis://${secret}`,
      DATABASE_URL: `postgres://${secret}/x`,
      LIM_MANAGER_URL: `http://${silentHost()}`,
    },
    ["--timeout", "1000"],
  );
  expect(code).toBe(1);
  for (const check of ["redis", "postgres", "manager"]) expect(statusOf(check), check).toBe("fail");
  expect(statusOf("clock")).toBe("skip");
  expect(report.findings.find(({ check }) => check === "redis")?.text).toContain("no answer within 1 s");
  expect(output).not.toContain(password);
});
