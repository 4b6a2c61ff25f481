/** Named limits of this room. */
export const vectorIndexLimits = {
  /** Calls that wait for one index; past it a call is `overloaded`. */
  maxQueuedCalls: 4096,
  /** Rows of an `add` that one message carries: searches run and signals are heard between two messages. */
  addSliceRows: 64,
  /** Queries after which the next slice of an `add` is due, so that a stream of them cannot starve it. */
  maxQueriesBetweenSlices: 64,
  /** Engine hnswlib: rows of a change for which a search waits at most; the others are inserted after it. */
  changeSliceRows: 4,
  /** Queries after which the next of these slices is due: together they take about as long as a slice. */
  maxQueriesInChange: 8,
  /** How far from 1 the norm of a vector may be. */
  normTolerance: 1e-3,
  /** Ids that are entered in one go when an index is opened: a few milliseconds of the event loop. */
  fillSliceIds: 16_384,
  /** Neighbours of one query. */
  maxSearchK: 1_000_000,
  maxSearchEf: 1_000_000,
  /** Values that are checked or copied before the event loop turns: a fraction of a millisecond. */
  valuesPerTurn: 262_144,
  /** Positions that are removed together after an addition that failed. */
  maxHiddenAtOnce: 65_536,
  /** Results that one search may ask for, all its queries together: room for all of them is reserved. */
  maxSearchResults: 16_000_000,
  /** Bytes that one read of a file asks for: Node takes the length as a signed 32-bit number. */
  readBytes: 1 << 30,
  /** Positions of one index: the engine's ids are 32 bits wide and its arithmetic signed in places. */
  maxSlots: 2 ** 31 - 1,
  /** Queries that wait in the exact search's pool, all indexes together. */
  maxWaitingExactQueries: 16_384,
  /** Queries that one pass over the data answers. */
  exactBatchQueries: 16,
  /** Dot products of one pass, so that a pass over a large index stays short. */
  exactBatchProducts: 4_000_000,
  /** How long a closing thread may finish what it does before it is terminated. */
  closeGraceMs: 5_000,
} as const;
