import { createHash } from "node:crypto";
import { defaults, LimError, replyStreamPrefix } from "@lim/contracts";
import type { KeyNames } from "./port.ts";

export const defaultKeyNames: KeyNames = {
  masterLock: defaults.managerMasterLock,
  matchStreamPrefix: defaults.matchStreamPrefix,
  matcherLockPrefix: defaults.matcherLockPrefix,
  consumerGroup: defaults.matcherConsumerGroup,
};

const indexerPrefix = "lim_indexer__";

/** Keys whose names no setting changes. */
export const fixedKeys = {
  /** Sorted set of `label|matcher_id` by expiry in milliseconds of Redis' clock. */
  labels: "lim:labels",
  /** Bounded stream of match requests that were delivered too often. */
  deadLetters: "lim:dead_letters",
  labelKey: (label: string, matcherId: string) => `matching_label__${label}__${matcherId}`,
  labelMember: (label: string, matcherId: string) => `${label}|${matcherId}`,
  replyStream: (client: string) => `${replyStreamPrefix}${client}`,
  indexer: (origin: string) => `${indexerPrefix}${origin}`,
  indexerPattern: `${indexerPrefix}*`,
  originOfIndexer: (key: string) => key.slice(indexerPrefix.length),
} as const;

/** Names of every key that depends on the settings. The hash tag puts the coordination state into the master lock's slot. */
export class Keys {
  readonly names: KeyNames;
  readonly masterLock: string;
  readonly epoch: string;
  /** Sorted set of all task ids by creation. */
  readonly tasks: string;
  /** Sorted set of pending task ids in dispatch order. */
  readonly queue: string;
  /** Set of the ids of tasks in status indexing. */
  readonly indexing: string;
  /** Sorted set of the ids of ended tasks by their end in microseconds. */
  readonly ended: string;
  /** Sorted set of what filters compare of each task, by creation (task_guard.lua). */
  readonly facts: string;
  readonly lastPlan: string;
  /** Hash of the labels whose list is missing to the millisecond since when. */
  readonly missingLists: string;
  /** Followed by a task id. */
  readonly taskPrefix: string;
  /** Followed by a label. */
  readonly labelTaskPrefix: string;
  /** Followed by a task id: marks, for a while, that the task was removed on purpose while it was open. */
  readonly removedPrefix: string;
  /** Followed by a label: sorted set of its task ids by creation. */
  readonly tasksOfPrefix: string;
  readonly #idempotencyPrefix: string;

  constructor(names: KeyNames) {
    // A brace would make a hash tag of its own, and the lock would leave its state's slot.
    if (!/^[^{}]+$/.test(names.masterLock))
      throw new LimError(
        "bad_settings",
        `the master lock's name "${names.masterLock}" is empty or has a brace`,
      );
    const tag = `{${names.masterLock}}`;
    this.names = names;
    this.masterLock = names.masterLock;
    this.epoch = `${tag}:epoch`;
    this.tasks = `${tag}:tasks`;
    this.queue = `${tag}:queue`;
    this.indexing = `${tag}:indexing`;
    this.ended = `${tag}:ended`;
    this.facts = `${tag}:facts`;
    this.missingLists = `${tag}:missing_lists`;
    this.lastPlan = `${tag}:last_plan`;
    this.taskPrefix = `${tag}:task:`;
    this.labelTaskPrefix = `${tag}:label_task:`;
    this.removedPrefix = `${tag}:removed:`;
    this.tasksOfPrefix = `${tag}:tasks_of:`;
    this.#idempotencyPrefix = `${tag}:idempotency:`;
  }

  task(taskId: string): string {
    return `${this.taskPrefix}${taskId}`;
  }

  labelTask(label: string): string {
    return `${this.labelTaskPrefix}${label}`;
  }

  removed(taskId: string): string {
    return `${this.removedPrefix}${taskId}`;
  }

  tasksOf(label: string): string {
    return `${this.tasksOfPrefix}${label}`;
  }

  /** Hashed: a caller's text may be long, and may have a brace. */
  idempotency(key: string): string {
    return `${this.#idempotencyPrefix}${sha256(key)}`;
  }

  labelLock(label: string): string {
    return `${this.names.matcherLockPrefix}__${label}`;
  }

  matchStream(label: string): string {
    return `${this.names.matchStreamPrefix}${label}`;
  }
}

export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
