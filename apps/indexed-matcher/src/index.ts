export { type AppDeps, buildApp } from "./app.ts";
export { createMatcher, type Matcher, type MatcherDeps } from "./matcher.ts";
export { renderOpenApi } from "./openapi.ts";
export { type IndexState, type LoadedLabel, Registry } from "./registry.ts";
export { readSettings, type Settings, settingsHelp } from "./settings.ts";
