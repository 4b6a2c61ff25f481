import { runService } from "@lim/service-kit";
import { service, version } from "./app.ts";
import { runManager } from "./manager.ts";
import { helpText, readSettings } from "./settings.ts";

/** Above what a shutdown waits for: HTTP requests in flight and one last answer of an indexer. */
const forceAfterMs = 10_000;

await runService({
  name: service,
  version,
  help: helpText,
  forceAfterMs,
  main: (signal, settingsFile) => runManager(readSettings(process.env, settingsFile), signal),
});
