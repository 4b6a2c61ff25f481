import { randomUUID } from "node:crypto";
import { commandClient } from "./connection.ts";
import { guarded } from "./failures.ts";
import type { Cancellable, RedisConnection } from "./port.ts";

/** What a Redis server says of itself, and whether it takes a write. */
export interface RedisServerReport {
  product: "Redis" | "Valkey";
  version: string;
  role: string;
  maxmemoryPolicy: string;
  usedMemoryBytes: number;
  /** 0: no limit of its own. */
  maxmemoryBytes: number;
  isLoading: boolean;
  persistence: {
    appendOnly: boolean;
    /** Undefined where the server does not tell: CONFIG may be denied. */
    snapshots: boolean | undefined;
    /** What went wrong when it last saved; undefined where all is well. */
    fault: string | undefined;
  };
  /** The reason of a refused write; undefined where one was taken. */
  writeRefused: string | undefined;
}

/** Asks for INFO and CONFIG and writes one key of its own, which it removes. Throws redis_unavailable or bad_settings. */
export function readServerReport(redis: RedisConnection, options?: Cancellable): Promise<RedisServerReport> {
  const client = commandClient(redis);
  return guarded("asking Redis about itself", options?.signal, async () => {
    const fields = fieldsOf(await client.info());
    const saves: unknown = await client.config("GET", "save").catch(() => undefined);
    const aofFault = fields.get("aof_last_write_status") === "err";
    const rdbFault = fields.get("rdb_last_bgsave_status") === "err";
    return {
      product: fields.has("valkey_version") ? "Valkey" : "Redis",
      version: fields.get("valkey_version") ?? fields.get("redis_version") ?? "unknown",
      role: fields.get("role") ?? "unknown",
      maxmemoryPolicy: fields.get("maxmemory_policy") ?? "unknown",
      usedMemoryBytes: Number(fields.get("used_memory") ?? 0),
      maxmemoryBytes: Number(fields.get("maxmemory") ?? 0),
      isLoading: fields.get("loading") === "1",
      persistence: {
        appendOnly: fields.get("aof_enabled") === "1",
        snapshots: Array.isArray(saves) && typeof saves[1] === "string" ? saves[1] !== "" : undefined,
        fault: aofFault
          ? "the append-only file could not be written"
          : rdbFault
            ? "the last snapshot failed"
            : undefined,
      },
      writeRefused: await tryWrite(client),
    };
  });
}

async function tryWrite(client: ReturnType<typeof commandClient>): Promise<string | undefined> {
  const key = `lim:doctor:${randomUUID()}`;
  try {
    // It expires by itself where the removal does not come through.
    await client.set(key, "1", "EX", 10);
    await client.del(key);
    return undefined;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

function fieldsOf(info: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of info.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}
