export * from "./engines.ts";
export * from "./exact.ts";
export * from "./keyed-index.ts";
export * from "./port.ts";
