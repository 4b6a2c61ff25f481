import { setTimeout as sleep } from "node:timers/promises";
import { errorBodySchema, LimError } from "@lim/contracts";
import type { z } from "zod";

const requestTimeoutMs = 10_000;
/** Tries of one request whose connection broke, and the pause before the second; it doubles with each. */
const maxTries = 4;
const retryPauseMs = 250;

export interface ApiConnection {
  /** Without a slash at its end. */
  url: string;
  token: string | undefined;
}

export interface Call {
  method: "GET" | "POST" | "DELETE";
  path: string;
  query?: Query | undefined;
  body?: unknown;
  /** The manager answers the same request with the same key by the same task. */
  idempotencyKey?: string;
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** Errors of the API come back as the LimError that they are; an answer of another shape is `internal`. */
export async function call<Schema extends z.ZodType>(
  connection: ApiConnection,
  schema: Schema,
  request: Call,
): Promise<z.output<Schema>> {
  const text = await callForText(connection, request);
  const parsed = schema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new LimError(
    "internal",
    `${request.method} ${connection.url}${request.path} gave no answer of an Index Manager of this version: is LIM_MANAGER_URL right?`,
    { cause: parsed.error },
  );
}

export async function callForText(connection: ApiConnection, request: Call): Promise<string> {
  const timeoutMs = request.timeoutMs ?? requestTimeoutMs;
  // A request that changes something is sent again only where the manager knows it again.
  const repeatable = request.method === "GET" || request.idempotencyKey !== undefined;
  for (let tries = 1; ; tries++) {
    try {
      const timeout = AbortSignal.timeout(timeoutMs);
      const signal = request.signal ? AbortSignal.any([request.signal, timeout]) : timeout;
      const response = await fetch(addressOf(connection, request), {
        method: request.method,
        signal,
        headers: headersOf(connection, request),
        ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
      });
      const text = await response.text();
      if (!response.ok) throw errorOf(connection, request, response.status, text);
      return text;
    } catch (thrown) {
      request.signal?.throwIfAborted();
      if (thrown instanceof LimError) throw thrown;
      if (isTimeout(thrown) || !repeatable || tries >= maxTries)
        throw noAnswer(connection, thrown, timeoutMs);
      await sleep(retryPauseMs * 2 ** (tries - 1), undefined, { signal: request.signal });
    }
  }
}

export function addressOf(
  { url }: ApiConnection,
  { path, query = {} }: Pick<Call, "path" | "query">,
): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== undefined) parameters.set(name, String(value));
  return `${url}${path}${parameters.size > 0 ? `?${parameters}` : ""}`;
}

export function headersOf(
  { token }: ApiConnection,
  { body, idempotencyKey }: Pick<Call, "body" | "idempotencyKey"> = {},
): Record<string, string> {
  return {
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }),
  };
}

export function errorOf(
  { url, token }: ApiConnection,
  { method, path }: Pick<Call, "method" | "path">,
  status: number,
  text: string,
): LimError {
  if (status === 401)
    return new LimError(
      "unauthorized",
      token === undefined
        ? `the Index Manager at ${url} asks for a token: set LIM_API_TOKEN to the one that it was started with`
        : `the Index Manager at ${url} refused the token: LIM_API_TOKEN must be the one that it was started with`,
    );
  const body = errorBodySchema.safeParse(parseJson(text));
  if (body.success) return LimError.fromBody(body.data);
  return new LimError(
    "internal",
    `${method} ${url}${path}: HTTP ${status}, not from an Index Manager: is LIM_MANAGER_URL right?`,
  );
}

function isTimeout(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === "TimeoutError";
}

export function noAnswer({ url }: ApiConnection, cause: unknown, timeoutMs: number): LimError {
  const how = isTimeout(cause) ? `within ${timeoutMs / 1000} s` : `(${reasonOf(cause)})`;
  return new LimError(
    "timeout",
    `no answer ${how} from the Index Manager at ${url}: is it running, and is LIM_MANAGER_URL right?`,
    { cause },
  );
}

/** fetch hides why a connection failed in its cause. */
function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const inner = thrown.cause;
  return inner instanceof Error
    ? inner.message || ((inner as NodeJS.ErrnoException).code ?? inner.name)
    : thrown.message;
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
