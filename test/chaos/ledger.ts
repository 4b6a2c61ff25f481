import type { BuildRequest, LimError, Task } from "@lim/contracts";
import type { TaskStore } from "@lim/coordination";
import type { PeerWitness } from "./peer.ts";

/** What became of a task, as far as anyone has seen. */
interface Known {
  listId: string;
  /** A caller asked for it: it may build a revision that has an index. */
  requested: boolean;
  /** Its creation was answered with 201, or it was seen in Redis. */
  status: Task["status"] | "gone";
  removal: "none" | "asked" | "answered";
  removedAtMs: number;
  /** At the last loss of Redis it was pending: it may be gone with it. */
  exempt: boolean;
  /** Redis lost its record while it was being built. */
  recordLost: boolean;
}

interface Publication {
  attempt: number;
  atMs: number;
}

/** Of a list: a revision that was published, by which task, when. */
interface Built {
  revision: number;
  taskId: string;
  atMs: number;
}

/** An answer to a removal comes from another process: what a peer did just before it may be noted just after it. */
const removalSlackMs = 250;
const maxViolations = 100;

/** All that is known of tasks and publications, and every rule that was broken. */
export interface Ledger extends PeerWitness {
  readonly violations: string[];
  violation(text: string): void;
  created(taskId: string, listId: string): void;
  removalAsked(taskId: string): void;
  /** Undefined where the answer says that there is no such task (any more). */
  removalAnswered(taskId: string, was: Task["status"] | undefined): void;
  /** Looks at all open tasks, and at those that were open before. */
  observe(store: TaskStore): Promise<void>;
  /** To be called right before Redis loses everything. */
  beforeLoss(store: TaskStore): Promise<void>;
  openTaskIds(): string[];
  /** What must hold when everything has come to rest. */
  judge(store: TaskStore): Promise<void>;
  figures(): Record<string, number>;
}

export const openTasks = async (store: TaskStore): Promise<Task[]> => {
  // Records move from the queue to the indexers: in this order none is missed.
  const { tasks: pending } = await store.queue({ limit: 1_000 });
  const indexing = await store.indexing();
  return [...new Map([...pending, ...indexing].map((task) => [task.task_id, task])).values()];
};

const isOver = (status: Known["status"]) => status === "success" || status === "error";

export function createLedger(): Ledger {
  const known = new Map<string, Known>();
  const publications = new Map<string, Publication[]>();
  const builtOf = new Map<string, Built[]>();
  const takenAtMs = new Map<string, number>();
  let lostAtMs = Number.NaN;
  /** Tasks whose builds a peer ended badly or forgot: without a record nobody can tell more of them. */
  const endedAtPeer = new Set<string>();
  const violations: string[] = [];
  const counts = { builds: 0, failed: 0, forgotten: 0, publications: 0, observations: 0, losses: 0 };

  const violation = (text: string) => {
    if (violations.length < maxViolations) violations.push(text);
  };
  const note = (taskId: string, listId: string): Known => {
    const fresh: Known = {
      listId,
      requested: false,
      status: "pending",
      removal: "none",
      removedAtMs: Number.POSITIVE_INFINITY,
      exempt: false,
      recordLost: false,
    };
    const entry = known.get(taskId) ?? fresh;
    known.set(taskId, entry);
    return entry;
  };
  const see = (task: Task) => {
    const entry = note(task.task_id, task.content.list_id);
    if (task.trigger === "request") entry.requested = true;
    if (isOver(entry.status) && entry.status !== task.status)
      violation(`task ${task.task_id} ended as ${entry.status} and is ${task.status} now`);
    if (entry.removal === "answered" && !isOver(entry.status))
      violation(`task ${task.task_id} was removed and is ${task.status} again`);
    entry.status = task.status;
  };

  /** Two readings of several keys are no snapshot, so two open tasks are only believed when neither is between states. */
  const assertOneOpen = async (store: TaskStore, open: readonly Task[]) => {
    const byLabel = Map.groupBy(open, (task) => task.content.list_id);
    for (const [label, tasks] of byLabel) {
      const [first, second] = tasks;
      if (!first || !second) continue;
      const isOpen = async ({ task_id }: Task) => {
        const status = (await store.get(task_id))?.status;
        return status === "pending" || status === "indexing";
      };
      // Open, other open, still open: they were open together.
      if ((await isOpen(first)) && (await isOpen(second)) && (await isOpen(first)))
        violation(`list ${label} has two open tasks: ${first.task_id} and ${second.task_id}`);
    }
  };

  const judgeTask = async (store: TaskStore, taskId: string, entry: Known) => {
    const record = await store.get(taskId);
    const published = publications.get(taskId) ?? [];
    if (record) see(record);
    if (entry.removal === "answered") {
      if (record && !isOver(record.status)) violation(`removed task ${taskId} is still ${record.status}`);
      const late = published.find(({ atMs }) => atMs > entry.removedAtMs + removalSlackMs);
      if (late)
        violation(`attempt ${late.attempt} of task ${taskId} was published after the task was removed`);
      return;
    }
    if (entry.removal === "asked" && !record) return;
    if (entry.status === "success" && published.length === 0)
      violation(`task ${taskId} ended as success and was never published`);
    if (entry.status === "error" && published.length > 0)
      violation(`task ${taskId} was published and ended as error (${record?.error?.detail ?? "no record"})`);
    if (isOver(entry.status) || entry.exempt) return;
    const isExplained = entry.recordLost && (published.length > 0 || endedAtPeer.has(taskId));
    if (!isExplained)
      violation(`task ${taskId} was lost: last seen ${entry.status}, now ${record?.status ?? "no record"}`);
  };

  return {
    violations,
    violation,
    took(build: BuildRequest) {
      counts.builds++;
      takenAtMs.set(build.task_id, performance.now());
      note(build.task_id, build.list_id);
    },
    published({ task_id: taskId, list_id: label, attempt }, revision, atMs, again) {
      counts.publications++;
      const before = publications.get(taskId) ?? [];
      if (before.length > 0 || again)
        violation(
          `task ${taskId} was built to publication again by attempt ${attempt} (before: ${before.map((one) => `attempt ${one.attempt}`).join() || "in the storage"})`,
        );
      publications.set(taskId, [...before, { attempt, atMs }]);
      // A removal withdraws what its task has just published: the list may then be built again.
      const newest = (builtOf.get(label) ?? [])
        .filter((built) => known.get(built.taskId)?.removal === "none")
        .toSorted((a, b) => b.revision - a.revision)[0];
      const agoMs = (sinceMs: number) => `${Math.round(performance.now() - sinceMs)} ms ago`;
      if (newest && revision <= newest.revision && !note(taskId, label).requested)
        violation(
          `list ${label} was built again at revision ${revision} by planned task ${taskId}, taken ` +
            `${agoMs(takenAtMs.get(taskId) ?? Number.NaN)}; task ${newest.taskId} had published revision ` +
            `${newest.revision} ${agoMs(newest.atMs)}, taken ${agoMs(takenAtMs.get(newest.taskId) ?? Number.NaN)}; ` +
            `Redis was last lost ${agoMs(lostAtMs)}`,
        );
      builtOf.set(label, [...(builtOf.get(label) ?? []), { revision, taskId, atMs }]);
    },
    failed(build: BuildRequest, _error: LimError) {
      counts.failed++;
      endedAtPeer.add(build.task_id);
    },
    forgot(build) {
      counts.forgotten++;
      endedAtPeer.add(build.task_id);
    },
    created(taskId, listId) {
      note(taskId, listId).requested = true;
    },
    removalAsked(taskId) {
      const entry = known.get(taskId);
      if (entry?.removal === "none") entry.removal = "asked";
    },
    removalAnswered(taskId, was) {
      const entry = known.get(taskId);
      // Of one that was gone nobody says why.
      if (!entry || was === undefined) return;
      // One that had ended keeps its index.
      if (isOver(was)) {
        entry.status = was;
        entry.removal = "none";
        return;
      }
      entry.removal = "answered";
      entry.removedAtMs = performance.now();
    },
    async observe(store) {
      const openBefore = [...known].filter(([, one]) => !isOver(one.status) && one.status !== "gone");
      const open = await openTasks(store);
      counts.observations++;
      for (const task of open) if (!(known.get(task.task_id)?.removal === "answered")) see(task);
      await assertOneOpen(store, open);
      const ids = new Set(open.map((task) => task.task_id));
      for (const [taskId, entry] of openBefore) {
        if (ids.has(taskId) || entry.removal === "answered") continue;
        const record = await store.get(taskId);
        if (record && isOver(record.status)) see(record);
        else if (!record && entry.removal === "asked") entry.status = "gone";
      }
    },
    async beforeLoss(store) {
      counts.losses++;
      lostAtMs = performance.now();
      const indexing = new Set((await store.indexing()).map((task) => task.task_id));
      for (const [taskId, entry] of known) {
        if (isOver(entry.status) || entry.removal === "answered") continue;
        if (indexing.has(taskId)) entry.recordLost = true;
        else entry.exempt = true;
      }
    },
    openTaskIds: () =>
      [...known].flatMap(([id, one]) =>
        one.removal === "none" && !isOver(one.status) && one.status !== "gone" && !one.exempt ? [id] : [],
      ),
    async judge(store) {
      for (const [taskId, entry] of known) await judgeTask(store, taskId, entry);
    },
    figures: () => ({
      tasks: known.size,
      requested: [...known.values()].filter((one) => one.requested).length,
      removed: [...known.values()].filter((one) => one.removal === "answered").length,
      pending_at_a_loss_of_redis: [...known.values()].filter((one) => one.exempt && !isOver(one.status))
        .length,
      ended: [...known.values()].filter((one) => isOver(one.status)).length,
      ...counts,
    }),
  };
}
