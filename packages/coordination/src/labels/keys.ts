import { fixedKeys } from "../keys.ts";

/** Sorted set of members that were withdrawn on purpose, for one TTL each. */
export const withdrawnKey = `${fixedKeys.labels}:withdrawn`;
