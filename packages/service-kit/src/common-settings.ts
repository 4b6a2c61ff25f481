import { defaults, limits, parseRedisUrl } from "@lim/contracts";
import { z } from "zod";

/** A whole number from `min` to `max`, from its text. */
export const wholeNumber = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

/** `true` or `false`, also 1 or 0. */
export const flag = z.stringbool({ truthy: ["true", "1"], falsy: ["false", "0"] });

const address = (...protocols: string[]) =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && protocols.includes(new URL(text).protocol),
      `must begin with ${protocols.map((name) => `${name}//`).join(" or ")}`,
    );

const redisAddress = z.string().superRefine((text, context) => {
  try {
    parseRedisUrl(text);
  } catch (thrown) {
    context.addIssue({ code: "custom", message: thrown instanceof Error ? thrown.message : "is not valid" });
  }
});

/** What every service needs: one spelling, one check, one place. */
export const commonSettings = {
  redisUrl: {
    env: "REDIS_URL",
    secret: true,
    takes:
      "address of Redis, its Sentinels or a Cluster: redis://, redis-sentinel:// or redis-cluster://; rediss for TLS",
    schema: redisAddress.describe("Redis with maxmemory-policy noeviction"),
  },
  databaseUrl: {
    env: "DATABASE_URL",
    secret: true,
    takes: "postgres:// or postgresql:// address",
    schema: address("postgres:", "postgresql:").describe("Postgres with the lists and faces"),
  },
  storageRoot: {
    env: "LIM_STORAGE_ROOT",
    takes: "folder",
    schema: z.string().min(1).describe("Folder of the index storage, one for all services"),
  },
  logLevel: {
    env: "LIM_LOG_LEVEL",
    schema: z
      .enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"])
      .default("info")
      .describe("Least level that is logged"),
  },
} as const;

/** The descriptors that a deployment indexes and serves. */
export const descriptorSettings = {
  descriptorVersion: {
    env: "LIM_DESCRIPTOR_VERSION",
    // The wire format has 32 bits, Postgres' integer 31.
    schema: wholeNumber(0, 2 ** 31 - 1)
      .default(defaults.descriptorVersion)
      .describe("Descriptor version that is indexed and served"),
  },
  descriptorDim: {
    env: "LIM_DESCRIPTOR_DIM",
    schema: wholeNumber(limits.minDim, limits.maxDim)
      .default(defaults.descriptorDim)
      .describe("Dimensions of a descriptor"),
  },
} as const;

/** Who may call a service's HTTP API: one token for all services of a deployment. */
export const apiSettings = {
  apiToken: {
    env: "LIM_API_TOKEN",
    secret: true,
    takes: "text of 16 to 256 printable characters without spaces",
    schema: z
      .string()
      .regex(/^[\x21-\x7e]{16,256}$/, "must have 16 to 256 printable characters without spaces")
      .optional()
      .describe("Bearer token that every request but those for health must bear; off where unset"),
  },
} as const;

/** Where a service listens: `<prefix>_HOST` and `<prefix>_PORT`. */
export function listenSettings(prefix: string, defaultPort: number) {
  return {
    host: {
      env: `${prefix}_HOST`,
      takes: "address",
      schema: z.string().min(1).default("0.0.0.0").describe("Address to listen on"),
    },
    port: {
      env: `${prefix}_PORT`,
      schema: wholeNumber(0, 65_535).default(defaultPort).describe("Port to listen on; 0 takes a free one"),
    },
  } as const;
}
