import { isLimError } from "@lim/contracts";
import { connectRedis, type Log, type RedisServerReport, readServerReport } from "@lim/coordination";
import { bytesText, type Finding, fail, ok, placeOf, warn } from "./finding.ts";

const minMajorVersion = 7;
/** Of its own limit; writes are refused at the limit. */
const fullRatio = 0.9;

export interface RedisProbe {
  findings: Finding[];
  localAheadMs: number | undefined;
}

/** `isOwnStack`: it is the private one of `lim up`. */
export async function probeRedis(
  url: string,
  { isOwnStack, signal }: { isOwnStack: boolean; signal: AbortSignal },
): Promise<RedisProbe> {
  const place = placeOf(url);
  let firstFault: string | undefined;
  const heard = (fields: object) => {
    if ("reason" in fields) firstFault ??= String(fields.reason);
  };
  const log: Log = { debug: heard, info: heard, warn: heard, error: heard };
  let connection: ReturnType<typeof connectRedis> | undefined;
  try {
    connection = connectRedis({ url, name: "lim-doctor", log });
    // Of several servers this looks at each, the report below at one of them.
    if (/-(sentinel|cluster)$/.test(place.split(":", 1)[0] ?? "")) await connection.checkServer({ signal });
    const report = await readServerReport(connection, { signal });
    const clock = await connection.time({ signal }).catch(() => undefined);
    return { findings: judgeRedis(report, place, isOwnStack), localAheadMs: clock?.localAheadMs };
  } catch (thrown) {
    const reason = firstFault ?? (thrown instanceof Error ? thrown.message : String(thrown));
    return {
      findings: [unreachable(place, reason, { isRefusal: isLimError(thrown, "bad_settings"), isOwnStack })],
      localAheadMs: undefined,
    };
  } finally {
    await connection?.close();
  }
}

function unreachable(
  place: string,
  reason: string,
  { isRefusal, isOwnStack }: { isRefusal: boolean; isOwnStack: boolean },
): Finding {
  if (/NOAUTH/.test(reason))
    return fail(
      "redis",
      `${place} wants a password, and REDIS_URL has none`,
      "set REDIS_URL=redis://:<password>@<host>:<port> (or redis://<user>:<password>@…)",
    );
  if (/WRONGPASS|invalid password/i.test(reason))
    return fail(
      "redis",
      `${place} refuses the user or password of REDIS_URL`,
      "mend REDIS_URL; characters like @ : / # in a password are written %40 %3A %2F %23",
    );
  if (/NOPERM/.test(reason))
    return fail("redis", `${place} denies a right: ${reason}`, "give the user +@all on the keys of LIM");
  if (isRefusal)
    return fail("redis", `REDIS_URL is not usable: ${reason}`, "mend REDIS_URL: redis://host:6379");
  if (/ENOTFOUND|EAI_AGAIN/.test(reason))
    return fail(
      "redis",
      `${place}: no such host (${reason})`,
      "mend the host of REDIS_URL, or the name service",
    );
  if (/ECONNREFUSED/.test(reason))
    return fail(
      "redis",
      `nothing listens at ${place}`,
      isOwnStack
        ? "end lim up and start it again: its Redis has ended"
        : "start Redis (redis-server --maxmemory-policy noeviction --appendonly yes), or mend REDIS_URL",
    );
  if (/RESP type|Protocol error/i.test(reason))
    return fail("redis", `${place} is not a Redis server`, "mend host and port of REDIS_URL");
  return fail(
    "redis",
    `${place} does not answer: ${reason}`,
    "see whether Redis runs, a firewall lies between, or it wants TLS (rediss://)",
  );
}

export function judgeRedis(report: RedisServerReport, place: string, isOwnStack = false): Finding[] {
  return [
    judgeVersion(report, place),
    judgeRole(report),
    report.maxmemoryPolicy === "noeviction"
      ? ok("redis.policy", "maxmemory-policy noeviction")
      : fail(
          "redis.policy",
          `maxmemory-policy ${report.maxmemoryPolicy}: Redis may throw tasks and requests away`,
          "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        ),
    judgeMemory(report),
    judgePersistence(report, isOwnStack),
  ].concat(
    report.writeRefused === undefined
      ? []
      : [fail("redis.write", `a write was refused: ${report.writeRefused}`, writeRemedy(report))],
  );
}

function judgeVersion({ product, version }: RedisServerReport, place: string): Finding {
  if (Number.parseInt(version, 10) >= minMajorVersion)
    return ok("redis", `${product} ${version} at ${place}`);
  return fail(
    "redis",
    `${product} ${version} at ${place} is too old`,
    `run Redis ${minMajorVersion}.0 or newer, or Valkey`,
  );
}

function judgeRole({ role, isLoading }: RedisServerReport): Finding {
  if (role !== "master")
    return fail("redis.role", "it is a read-only replica", "let REDIS_URL name the primary");
  if (isLoading) return warn("redis.role", "it is still loading its data", "wait until it has loaded");
  return ok("redis.role", "primary");
}

function judgeMemory({ usedMemoryBytes, maxmemoryBytes }: RedisServerReport): Finding {
  const used = bytesText(usedMemoryBytes);
  if (maxmemoryBytes === 0) return ok("redis.memory", `${used} used, no limit of its own`);
  const text = `${used} of ${bytesText(maxmemoryBytes)} used`;
  if (usedMemoryBytes < fullRatio * maxmemoryBytes) return ok("redis.memory", text);
  return warn(
    "redis.memory",
    `${text}: at the limit it refuses every request`,
    "raise maxmemory, or free keys",
  );
}

function judgePersistence({ persistence }: RedisServerReport, isOwnStack: boolean): Finding {
  const { appendOnly, snapshots, fault } = persistence;
  if (fault !== undefined)
    return fail(
      "redis.persistence",
      `${fault}: Redis refuses writes`,
      "free its disk; its log has the reason",
    );
  if (appendOnly) return ok("redis.persistence", "append-only file on");
  if (isOwnStack) return ok("redis.persistence", "none: it is the private one of lim up, and goes with it");
  return warn(
    "redis.persistence",
    `no append-only file${snapshots === true ? ", snapshots only" : ""}: a restart of Redis loses tasks that wait and requests in flight; lists are planned again`,
    "redis-cli CONFIG SET appendonly yes, and the same in redis.conf",
  );
}

function writeRemedy({ writeRefused = "" }: RedisServerReport): string {
  if (writeRefused.startsWith("OOM")) return "raise maxmemory, or free keys";
  if (writeRefused.startsWith("MISCONF")) return "free the disk of Redis; its log has the reason";
  if (writeRefused.startsWith("NOPERM")) return "give the user of REDIS_URL the right to write";
  return "see the log of Redis";
}
