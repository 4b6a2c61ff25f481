import type { Mix } from "./options.ts";

export const facesPerTransaction = 10;

export type Kind = keyof Mix;

/** Milliseconds since the epoch, of this machine's one clock, finer than Date's. */
export const epochMs = (): number => performance.timeOrigin + performance.now();

export interface WriterOptions {
  databaseUrl: string;
  listId: string;
  name: string;
  dim: number;
  modelSeed: number;
  writers: number;
  /** Persons 0..faces-1 are in the list. */
  faces: number;
}

export interface FlowArgs {
  perS: number;
  durationMs: number;
  mix: Mix;
}

export interface Commit {
  /** The list's revision after it, by the order in which commits were acknowledged. */
  revision: number;
  atMs: number;
  kind: Kind;
}

export interface FlowFigures {
  commits: Commit[];
  /** Less than asked where Postgres, or the writers, could not keep up. */
  changesPerS: number;
  /** Some of the persons that are in the list since, and some that are not any more. */
  linkedPersons: number[];
  unlinkedPersons: number[];
}

export interface BurstFigures {
  startedMs: number;
  committedMs: number;
  revision: number;
}

export type WriterOperations = {
  open(args: WriterOptions): Promise<void>;
  /** Vectors are made before, so that writing is all that a flow costs. */
  prepareFlow(args: FlowArgs): Promise<void>;
  flow(args: FlowArgs): Promise<FlowFigures>;
  prepareBurst(args: { faces: number }): Promise<void>;
  burst(args: { faces: number }): Promise<BurstFigures>;
};
