import { setImmediate as nextTurn } from "node:timers/promises";
import { isLimError, LimError, type Match, type MatchReply } from "@lim/contracts";
import type { Log, MatchConsumer, MatchEntry } from "@lim/coordination";
import { callerIdsOf, FailureLog } from "./failure-log.ts";
import type { IndexHolder } from "./index-holder.ts";
import { cut, errorReply, type MatchQuery, matchReply, matrixOf, QueryMatrix } from "./match-request.ts";
import type { MatcherMetrics } from "./metrics.ts";
import type { Registry } from "./registry.ts";

/** Requests that wait for a revision at a time; past it they are told at once that the index is behind. */
const maxWaiting = 1_024;
/** Longest wait for a revision, whatever the request's timeout. */
const maxRevisionWaitMs = 5_000;
/** Left of a request's time for its search and answer after a wait. */
const answerMarginMs = 50;
/** A larger batch is searched in steps: the first is answered, and its callers ask again, while the next is searched. */
const searchStep = 32;

/** Of a batch whose search failed. */
const maxNamedRequests = 10;

type Answer = { entry: MatchEntry; reply: MatchReply };

export interface MatchServiceOptions {
  registry: Registry;
  consumer: Pick<MatchConsumer, "reply">;
  metrics: MatcherMetrics;
  log: Log;
  efSearch: number;
  descriptorVersion: number;
  dim: number;
  /** Absent where refresh is switched off: an index that is behind stays so. */
  requestRefresh?: () => void;
  onEngineFailed: () => void;
}

/**
 * Answers batches of match requests of one label. A batch ends with its search: its last answers are written while the
 * next batch is searched already, at most one write a label at a time.
 */
export class MatchService {
  readonly #options: MatchServiceOptions;
  readonly #failureLog: FailureLog;
  readonly #stop = new AbortController();
  /** By entry id: a request that waits may be delivered again meanwhile. */
  readonly #waiting = new Map<string, { label: string; done: Promise<void> }>();
  /** By label: the newest answers on their way to Redis. */
  readonly #replying = new Map<string, Promise<void>>();

  constructor(options: MatchServiceOptions) {
    this.#options = options;
    this.#failureLog = new FailureLog(options.log);
  }

  /** Answers each entry by itself (I11). What is left unanswered comes again, here or at another matcher. */
  async handle(batch: readonly MatchEntry[]): Promise<void> {
    const label = batch[0]?.label;
    if (label === undefined) return;
    const refused: Answer[] = [];
    const queries: MatchQuery[] = [];
    const matrix = new QueryMatrix(batch.length, this.#options.dim);
    for (const entry of batch) {
      if (this.#waiting.has(entry.entryId)) continue;
      try {
        queries.push(matrix.add(entry, this.#options.descriptorVersion));
      } catch (thrown) {
        refused.push(refuse(entry, LimError.from(thrown)));
      }
    }
    // All steps are in the engine's queue at once, so that its thread never waits for this one between them.
    const steps = refused.length > 0 ? [Promise.resolve(refused)] : [];
    for (let at = 0; at < queries.length; at += searchStep)
      steps.push(this.#answer(label, queries.slice(at, at + searchStep), true));
    let before: Promise<void> | undefined;
    for (const step of steps) {
      before = this.#replying.get(label);
      this.#replyInTurn(label, step, before);
    }
    // One write may be left under way; more of them would pile up where Redis is slower than the search.
    await Promise.all([steps.at(-1), before]);
  }

  /** Resolves when the label's requests that are here now have their answers, those that wait for a revision too. */
  async settledOf(label: string): Promise<void> {
    const waiting = [...this.#waiting.values()].filter((one) => one.label === label);
    await Promise.all([this.#replying.get(label), ...waiting.map(({ done }) => done)]);
  }

  /** Resolves when the answers of all batches so far are written. */
  async settled(): Promise<void> {
    await Promise.all(this.#replying.values());
  }

  /** Ends waits, leaving their entries to other matchers; resolves when all answers are written. */
  async close(): Promise<void> {
    this.#stop.abort();
    const waiting = [...this.#waiting.values()].map(({ done }) => done);
    await Promise.all([...waiting, this.settled()]);
  }

  async #answer(label: string, queries: readonly MatchQuery[], mayWait: boolean): Promise<Answer[]> {
    const lease = this.#options.registry.acquire(label);
    if (!lease) {
      const error = new LimError("not_served", `this matcher serves label ${label} no more`);
      return queries.map(({ entry }) => refuse(entry, error));
    }
    try {
      const { holder } = lease;
      // Taken before the search: changes that come in between are in the answer, none before it is missing (I5).
      const revision = holder.revision;
      const answers: Answer[] = [];
      const current: MatchQuery[] = [];
      for (const query of queries) {
        const wanted = query.fields.min_revision ?? 0;
        if (wanted <= revision) current.push(query);
        else if (!mayWait || !this.#waitFor(label, query, wanted))
          answers.push(behind(query, holder, wanted));
      }
      answers.push(...(await this.#search(holder, revision, current)));
      return answers;
    } finally {
      lease.release();
    }
  }

  /** Large limits are searched apart: they would widen everybody's search. */
  async #search(holder: IndexHolder, revision: number, queries: readonly MatchQuery[]): Promise<Answer[]> {
    const { efSearch } = this.#options;
    const usual = queries.filter(({ fields }) => fields.limit <= efSearch);
    if (usual.length === queries.length)
      return queries.length > 0 ? this.#searchGroup(holder, revision, queries) : [];
    const large = queries.filter(({ fields }) => fields.limit > efSearch);
    const groups = [usual, large].filter((group) => group.length > 0);
    return (await Promise.all(groups.map((group) => this.#searchGroup(holder, revision, group)))).flat();
  }

  async #searchGroup(holder: IndexHolder, revision: number, group: readonly MatchQuery[]): Promise<Answer[]> {
    const startedMs = performance.now();
    let results: Match[][];
    try {
      results = await this.#searchOnce(holder, group);
    } catch (thrown) {
      return this.#afterFailure(holder, revision, group, thrown);
    }
    const searchMs = performance.now() - startedMs;
    const { metrics } = this.#options;
    metrics.searched(searchMs, group.length);
    for (const { entry, fields } of group)
      metrics.waited(Math.max(0, startedMs - entry.deadlineMs + fields.timeout_ms));
    const source = { indexId: holder.meta.index_id, revision, searchMs };
    return group.map((query, i) => ({
      entry: query.entry,
      reply: matchReply(query, cut(results[i] ?? [], query.fields), source),
    }));
  }

  #searchOnce(holder: IndexHolder, group: readonly MatchQuery[]): Promise<Match[][]> {
    const limit = group.reduce((most, { fields }) => Math.max(most, fields.limit), 1);
    return holder.keyed.search(matrixOf(group, holder.meta.dim), { limit, ef: this.#options.efSearch });
  }

  /**
   * A batch failed: each of its requests is searched alone. One that fails alone is left to come again the first
   * time (another matcher may manage), and gets its error after that.
   */
  async #afterFailure(
    holder: IndexHolder,
    revision: number,
    group: readonly MatchQuery[],
    thrown: unknown,
  ): Promise<Answer[]> {
    const error = LimError.from(thrown, "engine_failed");
    const { label, index_id } = holder.meta;
    this.#options.log.error(
      {
        label,
        index_id,
        searched: group.length,
        requests: group.slice(0, maxNamedRequests).map(({ entry }) => callerIdsOf(entry)),
        reason: error.message,
      },
      "search failed",
    );
    if (!(await isAlive(holder))) {
      if (!holder.failed) holder.fail();
      this.#options.onEngineFailed();
    } else if (group.length > 1) {
      const answers: Answer[] = [];
      for (const query of group) answers.push(...(await this.#searchGroup(holder, revision, [query])));
      return answers;
    }
    return group.filter(({ entry }) => entry.deliveries > 1).map(({ entry }) => refuse(entry, error));
  }

  /** False where waiting is of no use or there is no room. */
  #waitFor(label: string, query: MatchQuery, revision: number): boolean {
    const slot = this.#options.registry.slot(label);
    const leftMs = query.entry.deadlineMs - performance.now() - answerMarginMs;
    const { requestRefresh } = this.#options;
    if (
      !requestRefresh ||
      !slot ||
      slot.gap ||
      slot.current?.heldBack ||
      leftMs <= 0 ||
      this.#waiting.size >= maxWaiting
    )
      return false;
    requestRefresh();
    // A vector of its own: while it waits, the batch's matrix is free.
    const waiting = { ...query, vector: query.vector.slice() };
    const wait = async () => {
      const timeoutMs = Math.min(leftMs, maxRevisionWaitMs);
      await slot.waitForRevision(revision, { timeoutMs, signal: this.#stop.signal });
      if (this.#stop.signal.aborted) return;
      await this.#reply(await this.#answer(label, [waiting], false));
    };
    const { entryId } = query.entry;
    const done = wait()
      .catch((thrown: unknown) => {
        // Unanswered entries stay pending and come again.
        this.#options.log.warn({ label, reason: String(thrown) }, "a waiting match was not answered yet");
      })
      .finally(() => this.#waiting.delete(entryId));
    this.#waiting.set(entryId, { label, done });
    return true;
  }

  #replyInTurn(label: string, step: Promise<Answer[]>, before: Promise<void> | undefined): void {
    const write = async () => {
      const answers = await step;
      // The next batch's search begins before this thread is busy with writing.
      await nextTurn();
      await before;
      await this.#reply(answers);
    };
    const replying = write()
      .catch((thrown: unknown) => {
        // Unanswered entries stay pending and come again.
        this.#options.log.warn({ label, reason: String(thrown) }, "matches could not be answered yet");
      })
      .finally(() => {
        if (this.#replying.get(label) === replying) this.#replying.delete(label);
      });
    this.#replying.set(label, replying);
  }

  async #reply(answers: readonly Answer[]): Promise<void> {
    if (answers.length === 0) return;
    const startedMs = performance.now();
    await this.#options.consumer.reply(answers);
    const outcomes = new Map<string, number>();
    const failed: Answer[] = [];
    for (const answer of answers) {
      const { error } = answer.reply;
      if (error) failed.push(answer);
      const outcome = error ? LimError.fromBody(error).errorName : "ok";
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    if (failed.length > 0) this.#failureLog.note(failed);
    const { metrics } = this.#options;
    metrics.replied(performance.now() - startedMs, answers.length - failed.length);
    for (const [outcome, requests] of outcomes) metrics.answered(outcome, requests);
  }
}

function refuse(entry: MatchEntry, error: LimError): Answer {
  return { entry, reply: errorReply(entry, error) };
}

function behind({ entry }: MatchQuery, holder: IndexHolder, wanted: number): Answer {
  const source = { indexId: holder.meta.index_id, revision: holder.revision };
  const error = new LimError("index_behind", `index is at revision ${source.revision}, asked for ${wanted}`);
  return { entry, reply: errorReply(entry, error, source) };
}

async function isAlive(holder: IndexHolder): Promise<boolean> {
  if (holder.failed) return false;
  try {
    if (holder.keyed.index.slots > 0) await holder.keyed.index.read(Uint32Array.of(0));
    return true;
  } catch (thrown) {
    return !isLimError(thrown, "engine_failed");
  }
}
