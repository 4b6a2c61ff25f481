import { parse } from "yaml";
import { z } from "zod";

const name = z.string().regex(/^[a-zA-Z0-9._-]+$/);
const duration = z.string().regex(/^\d+(ms|s|m|h)$/);
const size = z.string().regex(/^\d+(b|k|m|g|kb|mb|gb)$/);
const variable = z.string().regex(/^[A-Z][A-Z0-9_]*$/);
const words = z.array(z.string().min(1)).min(1);

const healthcheck = z.strictObject({
  test: z.tuple([z.enum(["CMD", "CMD-SHELL"])], z.string()).refine((test) => test.length > 1),
  interval: duration,
  timeout: duration,
  start_period: duration.optional(),
  retries: z.int().min(1),
});
const conditions = z.enum(["service_started", "service_healthy", "service_completed_successfully"]);
const service = z.strictObject({
  image: z.string().regex(/^[a-z0-9./-]+(:[\w.-]+)?$/),
  build: z.strictObject({ context: z.literal("."), target: name }).optional(),
  command: words.optional(),
  entrypoint: words.optional(),
  environment: z.record(variable, z.union([z.string(), z.number()])).optional(),
  ports: z.array(z.string().regex(/^127\.0\.0\.1:\d+(-\d+)?:\d+$/)).optional(),
  volumes: z.array(z.string().regex(/^[a-z-]+:\/[\w./-]+$/)).optional(),
  depends_on: z.record(name, z.strictObject({ condition: conditions })).optional(),
  healthcheck: healthcheck.optional(),
  profiles: z.array(name).min(1).optional(),
  restart: z
    .union([z.enum(["no", "always", "unless-stopped"]), z.string().regex(/^on-failure(:\d+)?$/)])
    .optional(),
  stop_grace_period: duration.optional(),
  shm_size: size.optional(),
  init: z.boolean().optional(),
  cap_drop: words.optional(),
  security_opt: words.optional(),
  deploy: z
    .strictObject({
      replicas: z.int().min(1),
      resources: z.strictObject({
        limits: z.strictObject({ memory: size }),
        reservations: z.strictObject({ memory: size }),
      }),
    })
    .optional(),
});
export type ComposeService = z.infer<typeof service>;

/** What of the Compose Specification we use, and nothing else: a wrong key or kind of value is a fault. */
export const composeSchema = z.strictObject({
  name,
  services: z.record(name, service),
  volumes: z.record(name, z.null()),
});
export type Compose = z.infer<typeof composeSchema>;

/** Parses with anchors and merges resolved and without the `x-` keys. Throws z.ZodError with every fault. */
export function parseCompose(source: string): Compose {
  const all = parse(source, { merge: true, strict: true }) as Record<string, unknown>;
  const own = Object.entries(all).filter(([key]) => !key.startsWith("x-"));
  return composeSchema.parse(Object.fromEntries(own));
}

/** `${NAME:-default}`, as compose fills it in. */
export function interpolate(text: string, env: Readonly<Record<string, string>> = {}): string {
  return text.replace(/\$\{(\w+):-([^}]*)\}/g, (_, variableName: string, fallback: string) => {
    const set = env[variableName];
    return set === undefined || set === "" ? fallback : set;
  });
}

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

export function durationMs(text: string): number {
  const [, count, unit = ""] = /^(\d+)([a-z]+)$/.exec(text) ?? [];
  return Number(count) * (unitMs[unit] ?? Number.NaN);
}
