/** Limits of this room. */
export const facesDbLimits = {
  maxConnections: 10,
  /** Waiting for a free or a new connection. */
  connectTimeoutMs: 10_000,
  /** Tries of a transaction that Postgres asks to repeat (40001, 40P01). */
  maxTransactionAttempts: 6,
  retryBaseMs: 10,
  /** Faces of one putFaces: it is one transaction. */
  maxPutFaces: 10_000,
  maxListsPerPut: 1_000,
  /** Faces of one statement that carries descriptors. */
  descriptorChunkRows: 500,
  /** Ids of one statement; each chunk of link, unlink and delete is a transaction of its own. */
  idChunkRows: 10_000,
  maxIdsPerCall: 1_000_000,
  maxExternalIdChars: 512,
  maxNameChars: 512,
  maxSourceKeyChars: 1_024,
  snapshotBatchRows: 1_000,
  maxSnapshotBatchRows: 100_000,
  maxPacketFaces: 10_000,
  /** Feed rows that one read of the feed may cover, for each face it may hold: many changes of few faces end it here. */
  packetScanRowsPerFace: 16,
  /** The same, beyond a row for each face: reading ahead of what is taken costs time. */
  packetScanExtraRows: 1_000,
  /** Lists that one statement which asks for many looks at. */
  listsPerQuery: 1_000,
  compactChunkRows: 50_000,
  importChunkRows: 1_000,
  maxImportChunkRows: 20_000,
  maxReportedFaults: 100,
} as const;
