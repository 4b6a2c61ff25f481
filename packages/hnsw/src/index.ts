export type { Metric } from "./layout.ts";
