// Health check of an image: exit code 0 where the service in this container answers 200 under the path given
// (livez by default). Images have no curl.
const port = process.env.LIM_MANAGER_PORT ?? process.env.LIM_INDEXER_PORT ?? process.env.LIM_MATCHER_PORT;
const path = process.argv[2] ?? "livez";
const isOk = await fetch(`http://127.0.0.1:${port}/${path}`, { signal: AbortSignal.timeout(4_000) }).then(
  (response) => response.ok,
  () => false,
);
process.exit(isOk ? 0 : 1);
