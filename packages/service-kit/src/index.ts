import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { z } from "zod";

/**
 * Reads a service's settings once. `vars` maps each environment variable to its field's schema (strings in, typed
 * values out, with `.describe()` and defaults); the result is keyed as `fields` says. All faults are reported
 * together, each with the variable's name, in one `bad_settings` error.
 */
export declare function loadSettings<Shape extends Record<string, { env: string; schema: z.ZodType }>>(
  shape: Shape,
  env: Readonly<Record<string, string | undefined>>,
): { [Key in keyof Shape]: z.output<Shape[Key]["schema"]> };
/** Lines for `--help`: variable, default, description. */
export declare function describeSettings(shape: Record<string, { env: string; schema: z.ZodType }>): string;

export declare function createLogger(options: { service: string; level: string }): Logger;

export interface HealthCheck {
  name: string;
  /** Rejects with the reason while failing. */
  check: (signal: AbortSignal) => Promise<void>;
}

/**
 * A fastify application with what all of LIM's services share: zod validation and serialization, errors as
 * `{error_code, desc, detail, link}` from the one table, Luna-Request-Id (accepted, generated, echoed, logged), body
 * limits, /version, /healthcheck, /livez, /readyz, /metrics, and /docs with the OpenAPI document.
 */
export declare function createHttpApp(options: {
  service: string;
  version: string;
  description: string;
  logger: Logger | FastifyBaseLogger;
  metrics: Registry;
  health: readonly HealthCheck[];
  /** True once the service may take work. */
  isReady: () => boolean;
}): Promise<FastifyInstance>;
/** The OpenAPI document of a ready app as YAML, stable in order. */
export declare function openApiYaml(app: FastifyInstance): Promise<string>;

/**
 * Runs a service's `main`: `--help`, `--version`; SIGTERM and SIGINT abort the signal once, a second one or
 * `forceAfterMs` exits at once; a failure is logged with its cause and remedy, exit code 1 (2 for bad settings).
 */
export declare function runService(options: {
  name: string;
  version: string;
  help: () => string;
  forceAfterMs: number;
  main: (signal: AbortSignal) => Promise<void>;
}): Promise<void>;

/** Host name or address under which others reach this process: the setting, else the first non-internal IPv4, else 127.0.0.1. */
export declare function guessHost(setting: string | undefined): string;
