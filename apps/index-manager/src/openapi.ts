import { createLogger, openApiYaml, Registry } from "@lim/service-kit";
import { buildApp } from "./app.ts";

/** Stands where describing needs no service; any use of it is a mistake in the describing code. */
function unused<T extends object>(what: string): T {
  return new Proxy({} as T, {
    get: (_target, name) => {
      throw new Error(`${what}.${String(name)} was used while only the API was described`);
    },
  });
}

/** The OpenAPI document as YAML, without a connection to anything. */
export async function renderOpenApi(): Promise<string> {
  const app = await buildApp({
    store: unused("store"),
    db: unused("db"),
    storage: unused("storage"),
    previews: unused("previews"),
    progressStreams: unused("progressStreams"),
    stopping: new AbortController().signal,
    apiToken: undefined,
    descriptorVersion: 0,
    logger: createLogger({ service: "openapi", level: "silent" }),
    metrics: new Registry(),
    health: [],
    isReady: () => false,
    isMaster: () => false,
  });
  try {
    return await openApiYaml(app);
  } finally {
    await app.close();
  }
}
