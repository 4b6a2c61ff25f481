export * from "./engines.ts";
export * from "./exact.ts";
export { IdTable } from "./id-table.ts";
export * from "./keyed-index.ts";
export * from "./keyed-port.ts";
export { vectorIndexLimits } from "./limits.ts";
export * from "./port.ts";
