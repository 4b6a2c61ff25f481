export { type AppDeps, buildApp } from "./app.ts";
export { createIndexer, type Indexer } from "./indexer.ts";
export { renderOpenApi } from "./openapi.ts";
export { readSettings, type Settings, settingsHelp } from "./settings.ts";
