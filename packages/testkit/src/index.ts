import type { FacesDb } from "@lim/faces-db";
import type { LocalServer } from "@lim/local-servers";

export interface FaceModelParams {
  dim: number;
  seed: number;
  /** Dimensions that carry variance: the spread of impostors' cosines is about 1 / sqrt(effectiveDim). */
  effectiveDim: number;
  /** Mean and standard deviation of the cosine of two images of one person. */
  genuineMean: number;
  genuineStd: number;
}
/** Parameters whose genuine and impostor distributions were checked against real descriptors (see the README). */
export declare const defaultFaceModel: FaceModelParams;

/** Deterministic synthetic descriptors: person p's image i is the same vector whenever asked for. */
export interface FaceGenerator {
  readonly params: FaceModelParams;
  /** Unit vector of one image of one person. */
  vector(person: number, image: number): Float32Array;
  /** persons × imagesPerPerson rows in person order. */
  matrix(options: { firstPerson: number; persons: number; imagesPerPerson?: number }): Float32Array;
}
export declare function createFaceGenerator(params?: Partial<FaceModelParams>): FaceGenerator;
/** Stable face id (a UUID) of a person and an image under a name space. */
export declare function faceIdOf(space: string, person: number, image?: number): string;

/** Real descriptors where LIM_TEST_DATA (default ./test-data) has them; undefined where not. */
export declare function loadRealDescriptors(): Promise<
  { dim: number; count: number; vectors: Float32Array; identities: string[]; images: string[] } | undefined
>;

/** A private Redis for one test file. */
export declare function startTestRedis(): Promise<LocalServer & { restart(): Promise<void> }>;
/** A private, migrated database for one test file, cloned from a template on the test run's server. */
export declare function createTestDatabase(): Promise<{ url: string; db: FacesDb; drop(): Promise<void> }>;

export interface ManagedProcess {
  readonly name: string;
  readonly pid: number;
  /** Everything it wrote so far, line by line. */
  readonly lines: readonly string[];
  /** Resolves with the first line (past or future) that matches. */
  waitForLine(pattern: RegExp, options: { timeoutMs: number }): Promise<string>;
  kill(signal: NodeJS.Signals): void;
  /** Exit code or signal. */
  readonly exited: Promise<number | NodeJS.Signals>;
  /** SIGTERM, then SIGKILL after graceMs. */
  stop(options?: { graceMs?: number }): Promise<void>;
}
export declare function startProcess(options: {
  name: string;
  /** Module to run under this Node. */
  script: string;
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
}): ManagedProcess;
/** Awaits a condition by polling; rejects with `what` and the last reason after timeoutMs. */
export declare function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options?: { timeoutMs?: number; intervalMs?: number },
): Promise<T>;
