import { createHash } from "node:crypto";
import { defaults, LimError, replyStreamPrefix } from "@lim/contracts";
import { clusterOf } from "./connection.ts";
import type { KeyNames, RedisConnection } from "./port.ts";
import { hashTagOf, slotCount, slotOf } from "./slots.ts";

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

/**
 * Hash tags of match streams in a Redis Cluster: one for each sixteenth of the slots, in order, about its middle. One
 * blocking read covers keys of one slot only, so a matcher needs as many readers as its streams have slots.
 */
export const streamTags: readonly string[] = [
  ...["18", "3", "83", "58", "19", "2", "95", "59"],
  ...["12", "34", "81", "49", "13", "22", "97", "48"],
];

/** The names as they are on that connection. */
export function keysOf(redis: RedisConnection, names: KeyNames): Keys {
  return new Keys(names, clusterOf(redis) !== undefined);
}

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
  readonly #tagsStreams: boolean;

  constructor(names: KeyNames, isCluster = false) {
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
    // Without a prefix the stream is named as existing clients name it; a prefix with a tag says its slot itself.
    const prefix = names.matchStreamPrefix;
    this.#tagsStreams = isCluster && prefix !== "" && hashTagOf(prefix) === undefined;
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

  /** In a Redis Cluster the tag of the sixteenth in which the bare label would lie stands between prefix and label. */
  matchStream(label: string): string {
    const prefix = this.names.matchStreamPrefix;
    if (!this.#tagsStreams) return `${prefix}${label}`;
    const tag = streamTags[Math.floor((slotOf(label) * streamTags.length) / slotCount)];
    return `${prefix}{${tag}}:${label}`;
  }
}

export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
