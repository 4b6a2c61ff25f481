import {
  type ErrorBody,
  type ErrorName,
  errorBodySchema,
  errorNameOfCode,
  errorTable,
  LimError,
  limits,
} from "@lim/contracts";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";

/** The service's own page, which lists every error (see the description of its OpenAPI document). */
const link = "/docs";

export const errorComponent = errorBodySchema.meta({
  id: "Error",
  description: "Every failure of every operation has this form.",
});

const jsonContent = { "application/json": { schema: errorComponent } };

/** Response schemas of the errors an operation can give, by HTTP status; `internal` is always among them. */
export function errorResponses(
  ...names: ErrorName[]
): Record<number, { description: string; content: typeof jsonContent }> {
  const descriptions = new Map<number, string[]>();
  for (const name of new Set<ErrorName>([...names, "internal"])) {
    const row = errorTable[name];
    const texts = descriptions.get(row.httpStatus) ?? [];
    descriptions.set(row.httpStatus, [...texts, `${row.code} ${row.desc}`]);
  }
  return Object.fromEntries(
    [...descriptions].map(([status, texts]) => [
      status,
      { description: texts.join("; "), content: jsonContent },
    ]),
  );
}

export function httpErrorBody(error: LimError): ErrorBody {
  const body = error.toBody();
  return { ...body, detail: body.detail.slice(0, limits.maxErrorDetailChars), link };
}

function validationDetail(
  error: Pick<FastifyError, "validationContext"> & { validation: unknown[] },
): string {
  const where = error.validationContext ?? "input";
  return (error.validation as { instancePath: string; message?: string }[])
    .map(({ instancePath, message }) => `${where}${instancePath === "/" ? "" : instancePath}: ${message}`)
    .join("; ");
}

/** Names by the code of fastify's own refusals; others below 500 are bad input. */
const ofFastifyCode: Readonly<Record<string, ErrorName>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: "payload_too_large",
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "unsupported_media_type",
};

/** What the caller may know of a thrown value. Anything unforeseen is `internal` without its text. */
export function toHttpError(thrown: unknown, bodyLimitBytes?: number): LimError {
  if (thrown instanceof LimError) return thrown;
  if (hasZodFastifySchemaValidationErrors(thrown))
    return new LimError("bad_input", validationDetail(thrown), { cause: thrown });
  if (thrown instanceof Error && thrown.name === "AbortError") return LimError.from(thrown);
  const { code, statusCode, message, expose } = thrown as Partial<FastifyError> & { expose?: boolean };
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE" && bodyLimitBytes !== undefined)
    return new LimError("payload_too_large", `the body has more than ${bodyLimitBytes} bytes`, {
      cause: thrown,
    });
  const name = code === undefined ? undefined : ofFastifyCode[code];
  if (name) return new LimError(name, message ?? "", { cause: thrown });
  // Its plugins' refusals too: some have a code, those of served files are marked as meant for the caller.
  const refusedByFastify = code?.startsWith("FST_") || expose === true || thrown instanceof SyntaxError;
  if (refusedByFastify && statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return new LimError("bad_input", message ?? "", { cause: thrown });
  return new LimError("internal", "Unexpected failure; the service's log has it under the request id", {
    cause: thrown,
  });
}

const sentErrors = new WeakMap<FastifyReply, ErrorName>();

/** Name of the error that a reply carried, for metrics. */
export function sentErrorOf(reply: FastifyReply): ErrorName | undefined {
  return sentErrors.get(reply);
}

export function sendError(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const error = toHttpError(thrown, request.routeOptions.bodyLimit);
  if (error.httpStatus >= 500) request.log.error({ err: thrown, error_code: error.code }, "request failed");
  else request.log.debug({ error_code: error.code, detail: error.detail }, "request refused");
  sentErrors.set(reply, error.errorName);
  // Bytes as they are: the route's response schemas are not asked, so an undeclared status still has the one form.
  void reply
    .code(error.httpStatus)
    .type("application/json; charset=utf-8")
    .serializer((payload: unknown) => JSON.stringify(payload))
    .send(httpErrorBody(error));
}

/** Markdown table of all error codes for the OpenAPI description. */
export function errorTableMarkdown(): string {
  const codes = Object.values(errorTable)
    .map((row) => row.code)
    .toSorted((a, b) => a - b);
  const rows = codes.map((code) => {
    const name = errorNameOfCode(code) ?? "internal";
    return `| ${code} | ${name} | ${errorTable[name].httpStatus} | ${errorTable[name].desc} |`;
  });
  return ["| error_code | name | HTTP status | desc |", "|---|---|---|---|", ...rows].join("\n");
}
