/** Named limits of `lim check`. */
export const checkLimits = {
  /** Faces, files and texts that a finding names. */
  maxNamed: 10,
  /** Vectors that are asked for and compared with Postgres: N × faces products are computed. */
  defaultSample: 100,
  maxSample: 10_000,
  recallK: 10,
  /** Vectors of one read from the engine: a few MB. */
  batchRows: 1_024,
  /** Changed faces of one packet of the feed. */
  packetFaces: 1_000,
  /** Faces of a feed past which an index is so far behind that its differences say nothing: 28 bytes each. */
  maxChangedFaces: 4_000_000,
  /** Measured recall may lie this far below that of the publication: both are samples of some hundred neighbours. */
  maxRecallDrop: 0.05,
  /**
   * Live vectors that no link leads to. Near copies of one another fill each other's lists of links, and a group of more
   * of them than a list holds may become an island: so a few are no fault, and many make a list badly searchable.
   */
  fewUnreachable: 3,
  unreachableShareToWarn: 0.002,
  unreachableShareToFail: 0.05,
  /** Similarities that differ by less are equal. */
  tie: 1e-6,
  /** Bytes of ids that are read at once. */
  readBytes: 1 << 20,
} as const;
