export { type AppDeps, buildApp } from "./app.ts";
export { renderOpenApi } from "./openapi.ts";
