/** Keys and versions end here: the word means "none" or "never". */
export const noWord = 0xffff_ffff;
export const maxDim = 4096;
export const minM = 4;
export const maxM = 128;
export const maxEfConstruction = 4096;
export const maxThreads = 16;

export const defaultM = 16;
export const defaultEfConstruction = 200;
export const defaultSeed = 1;
export const defaultEf = 64;
export const minDefaultDepth = 32;
export const defaultMaxQueuedCalls = 4096;
export const defaultSpareMemoryBytes = 512 * 1024 * 1024;

/** Queries × k of one call: the room for its results, 8 bytes each. */
export const maxCallResults = 1 << 24;
/** Rows and removals of one change that becomes visible at once. */
export const maxChangeKeys = 65_536;
export const maxGetBytes = 1 << 28;

/** Rows of an addition that become visible together, at most; fewer where rows are large. */
export const sliceRows = 1024;
export const sliceBytes = 4 * 1024 * 1024;
/** Rows that a thread inserts before it asks for more work. */
export const insertRowsPerJob = 64;
/** As that, of changes that become visible one after another: so often it is looked which of them are whole. */
export const stepRowsPerJob = 8;
/** As those, where rows wait in a file: searches are looked for after every few rows all the same. */
export const spooledRowsPerJob = 1024;
/** Rows that a thread takes out of the file at once. */
export const spooledRowsPerRead = 4;
/** Rows that become visible together, at most. */
export const spooledSliceRows = 65_536;
/** Of one write to the file: signals are heard in between. */
export const spoolWriteBytes = 8 * 1024 * 1024;
/** As long as searches were called within this time, so many idle threads are kept free of other work for them. */
export const searchQuietMs = 500;
export const threadsKeptForSearches = 2;
/** Added to that of the thread that works beside searches, as the system counts it (19 = last). */
export const besideNiceness = 10;
/** Slots that a thread sweeps before it looks whether searches wait, and before it asks for more work. */
export const sweepSlotsPerStep = 64;
export const sweepSlotsPerJob = 4096;
/** Slices that the thread beside searches has before it, likewise. */
export const maxSlicesBeside = 2;
/** Queries that are not shared out among threads: to wake another one costs about as much as a search. */
export const minBatchQueries = 4;
/** Batches of searches that a thread has before it, so that it need not wait for the next. */
export const maxBatchesPerThread = 2;

/** Below so many vectors a scan beats the graph. */
export const autoExactSize = 1000;
/** A scan is used where ef reaches this share of all vectors. */
export const autoExactEfShare = 0.5;
/**
 * A filter that allows fewer keys than this many times ef is answered by a scan. The graph's search costs about ef / share
 * of those allowed, a scan the number of all; measured at 512 dimensions, they meet near here (20,000 and 60,000 vectors).
 */
export const autoExactAllowedPerEf = 48;

/** Dead slots are swept when they are more than this, and more than 1/64 of those in use. */
export const minDeadToSweep = 64;
export const deadShareToSweep = 1 / 64;
/** Versions are numbered anew before they run out of 32 bits. */
export const lastVersion = 0xfff0_0000;

/** Work on the main thread is done in steps of about a millisecond. */
export const wordsPerStep = 262_144;
export const keysPerStep = 8192;
/** Staging buffers kept for the next change, of `sliceBytes` each at most. */
export const spareStagings = 2;
export const maxReportedProblems = 20;
