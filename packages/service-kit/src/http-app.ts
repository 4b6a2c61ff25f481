import type { Socket } from "node:net";
import fastifySwagger from "@fastify/swagger";
import fastifySwaggerUi from "@fastify/swagger-ui";
import { LimError } from "@lim/contracts";
import {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  fastify,
  LogController,
} from "fastify";
import { jsonSchemaTransform, validatorCompiler } from "fastify-type-provider-zod";
import type { Logger } from "pino";
import { collectDefaultMetrics, type Registry } from "prom-client";
import { z } from "zod";
import { bearerScheme, createBearerCheck } from "./bearer.ts";
import { endConnectionsOnClose } from "./connections.ts";
import { completeSchema } from "./framework-responses.ts";
import { errorTableMarkdown, httpErrorBody, sendError, sentErrorOf } from "./http-errors.ts";
import { metricsIn } from "./metrics/make.ts";
import { transformObject } from "./openapi.ts";
import { checkNoBody, checkRequest, httpLimits } from "./request-checks.ts";
import { otherRequestIdHeader, otherRequestIdOf, requestIdHeader, requestIdOf } from "./request-id.ts";
import { addServiceRoutes, type HealthCheck, openPaths } from "./service-routes.ts";

/**
 * A fastify application with what all of LIM's services share: zod validation and serialization, errors as
 * `{error_code, desc, detail, link}` from the one table, Luna-Request-Id (accepted, generated, echoed, logged as
 * `luna_request_id`) and X-Request-Id (accepted where sane, echoed, logged as `x_request_id`), body limits, /version, /healthcheck, /livez, /readyz, /metrics, and /docs with the OpenAPI
 * document (/docs/json, /docs/yaml). Operations (routes with an operationId) that declare no query refuse any.
 * Where `bearerToken` is given, every request but those for health must bear it; where the option is named at all,
 * the document says that there may be one, so that it does not depend on a deployment's settings.
 * `app.close()` answers what is in flight, refuses what comes meanwhile (26007) and closes idle connections.
 */
export async function createHttpApp(options: {
  service: string;
  version: string;
  description: string;
  logger: Logger | FastifyBaseLogger;
  metrics: Registry;
  health: readonly HealthCheck[];
  /** True once the service may take work. */
  isReady: () => boolean;
  bodyLimitBytes?: number;
  /** Left out: this service knows no token. Undefined: it does, and none is set. */
  bearerToken?: string | undefined;
}): Promise<FastifyInstance> {
  const authorize = options.bearerToken === undefined ? undefined : createBearerCheck(options.bearerToken);
  const app = fastify({
    loggerInstance: options.logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "luna_request_id" }),
    bodyLimit: options.bodyLimitBytes ?? httpLimits.defaultBodyBytes,
    requestTimeout: httpLimits.requestTimeoutMs,
    keepAliveTimeout: httpLimits.keepAliveTimeoutMs,
    routerOptions: { maxParamLength: httpLimits.maxParamChars },
    http: { requireHostHeader: false },
    forceCloseConnections: "idle",
    return503OnClosing: false,
    genReqId: (request) => requestIdOf(request.headers[requestIdHeader.toLowerCase()]),
    childLoggerFactory: (logger, bindings, childOptions, raw) => {
      const other = otherRequestIdOf(raw.headers);
      return logger.child(
        other === undefined ? bindings : { ...bindings, x_request_id: other },
        childOptions,
      );
    },
    frameworkErrors: (error, request, reply) => {
      addStandingHeaders(request, reply);
      sendError(refusalOf(request, reply, authorize) ?? error, request, reply);
    },
    clientErrorHandler: answerBrokenRequest,
  });
  // An expectation that nobody knows is passed over: Node's own refusal has not the one form.
  app.server.on("checkExpectation", (request, response) => app.routing(request, response));
  endConnectionsOnClose(app);
  app.setValidatorCompiler(validatorCompiler);
  // Parsed, not encoded as the provider does: what the schema does not name is left out, the rest is checked.
  app.setSerializerCompiler(({ schema }) => {
    if (!(schema instanceof z.ZodType)) throw new Error("a response schema is not a zod schema");
    return (data) => JSON.stringify(schema.parse(data));
  });
  app.setErrorHandler(sendError);
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?", 1)[0];
    sendError(new LimError("not_found", `no operation ${request.method} ${path}`), request, reply);
  });
  app.removeContentTypeParser("text/plain");
  const offersBearer = "bearerToken" in options;
  addRequestHooks(app, { ...options, authorize, offersBearer });
  await addDocs(app, { ...options, offersBearer });
  addServiceRoutes(app, {
    ...options,
    isReady: () => options.isReady() && !closing.has(app),
  });
  return app;
}

const closing = new WeakSet<FastifyInstance>();

type Authorize = ReturnType<typeof createBearerCheck>;

/** An address that cannot be read meets no hook, but tells nothing to those without the token either. */
function refusalOf(request: FastifyRequest, reply: FastifyReply, authorize: Authorize | undefined): unknown {
  try {
    authorize?.(request, reply);
  } catch (thrown) {
    return thrown;
  }
  return undefined;
}

/** Those of every answer: under which ids the log has it. Who sent no X-Request-Id gets LIM's own there too. */
function addStandingHeaders(request: FastifyRequest, reply: FastifyReply): void {
  void reply
    .header(requestIdHeader, request.id)
    .header(otherRequestIdHeader, otherRequestIdOf(request.headers) ?? request.id)
    .header("X-Content-Type-Options", "nosniff");
}

function addRequestHooks(
  app: FastifyInstance,
  options: {
    service: string;
    version: string;
    metrics: Registry;
    authorize: Authorize | undefined;
    offersBearer: boolean;
  },
): void {
  const { service, version, metrics, authorize, offersBearer } = options;
  if (!metrics.getSingleMetric("process_cpu_seconds_total")) collectDefaultMetrics({ register: metrics });
  const { counter, gauge, histogram } = metricsIn(metrics);
  const durations = histogram("lim_http_request_duration_seconds");
  const errors = counter("lim_http_errors_total");
  gauge("lim_build_info").set({ service, version }, 1);
  app.addHook("onRoute", (route) => {
    if (route.schema?.operationId) route.schema = completeSchema(route, { offersBearer });
  });
  app.addHook("preClose", async () => {
    closing.add(app);
  });
  app.addHook("onRequest", async (request, reply) => {
    addStandingHeaders(request, reply);
    if (closing.has(app)) void reply.header("Connection", "close");
    authorize?.(request, reply);
    checkRequest(request);
    if (!closing.has(app) || openPaths.has(request.routeOptions.url ?? "")) return;
    throw new LimError("overloaded", "the service is shutting down");
  });
  app.addHook("preValidation", async (request) => checkNoBody(request));
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "unknown";
    const seconds = reply.elapsedTime / 1000;
    durations.observe({ method: request.method, route, status: reply.statusCode }, seconds);
    const error = sentErrorOf(reply);
    if (error !== undefined) errors.inc({ error });
    logAnswer(request, reply.statusCode, reply.elapsedTime);
  });
}

/** Reads change nothing, and probes, scrapes and pollers come every second: only a read that fails is worth a line. */
const readMethods = new Set(["GET", "HEAD"]);

function logAnswer(request: FastifyRequest, status: number, elapsedMs: number): void {
  const fields = {
    method: request.method,
    // Without the query string: it may carry what logs must not hold.
    path: request.url.split("?", 1)[0],
    status,
    elapsed_ms: Math.round(elapsedMs * 10) / 10,
  };
  const quiet = status < 400 && readMethods.has(request.method);
  request.log[quiet ? "debug" : "info"](fields, "request answered");
}

async function addDocs(
  app: FastifyInstance,
  options: { service: string; version: string; description: string; offersBearer: boolean },
): Promise<void> {
  await app.register(fastifySwagger, {
    openapi: {
      openapi: "3.1.1",
      info: {
        title: `LIM ${options.service}`,
        version: options.version,
        description: `${options.description}\n\nErrors have one form and come from one table:\n\n${errorTableMarkdown()}`,
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      // The service that hands the document out.
      servers: [{ url: "/" }],
      ...(options.offersBearer ? { components: { securitySchemes: { bearer: bearerScheme } } } : {}),
    },
    transform: jsonSchemaTransform,
    transformObject,
  });
  await app.register(fastifySwaggerUi, { routePrefix: "/docs" });
}

const brokenRequests: Readonly<Record<string, { line: string; error: LimError }>> = {
  HPE_HEADER_OVERFLOW: {
    line: "431 Request Header Fields Too Large",
    error: new LimError("payload_too_large", "headers or address are too large"),
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    line: "408 Request Timeout",
    error: new LimError("timeout", "the request did not arrive in time"),
  },
};

/** Bytes that are no HTTP request never reach a route; they get the same form of error, then the connection ends. */
function answerBrokenRequest(failure: Error & { code?: string }, socket: Socket): void {
  if (failure.code === "ECONNRESET" || socket.destroyed || !socket.writable) {
    socket.destroy();
    return;
  }
  const { line, error } = brokenRequests[failure.code ?? ""] ?? {
    line: "400 Bad Request",
    error: new LimError("bad_input", "not a well-formed HTTP request"),
  };
  const body = JSON.stringify(httpErrorBody(error));
  socket.end(
    `HTTP/1.1 ${line}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
      `${requestIdHeader}: ${requestIdOf(undefined)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
