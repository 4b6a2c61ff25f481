import { buildModeSchema, type CreateTaskBody, callerPrioritySchema } from "@lim/contracts";
import { type Command, Option } from "commander";
import { ManagerApi, type TaskQuery } from "./api/manager-api.ts";
import { listIndexes, listRelevantIndexes, removeIndexes } from "./commands/indexes.ts";
import type { ManagerCommand } from "./commands/manager-command.ts";
import { showPlan, showRetention } from "./commands/previews.ts";
import {
  cancelTask,
  createTask,
  listQueue,
  listTasks,
  removeTasks,
  showTask,
  watchTasks,
  watchToEnd,
} from "./commands/tasks.ts";
import { resolveListId } from "./list-id.ts";
import { helpBelow, jsonOption, positive, uuid } from "./options.ts";
import type { Program } from "./program.ts";
import { timeOf } from "./times.ts";

interface PageOptions {
  limit: number;
  all: boolean;
}
interface FilterOptions {
  ids?: string;
  list?: string;
  statuses?: string;
  indexer?: string;
  since?: string;
  until?: string;
  startedSince?: string;
  startedUntil?: string;
  endedSince?: string;
  endedUntil?: string;
}
interface ConsentOptions {
  dryRun: boolean;
  yes: boolean;
}

/** Commands that ask an Index Manager: tasks, queue, indexes, plan, retention. */
export function addManagerCommands(root: Command, program: Program): void {
  addTaskCommands(root, program);
  addTaskRemoval(root.commands.find((command) => command.name() === "tasks") ?? root, program);
  addQueueCommand(root, program);
  addIndexCommands(root, program);
  addPreviewCommands(root, program);
}

/** Runs `body` with what every such command gets. */
function asked<Options extends { json: boolean }>(
  { settings, act }: Program,
  options: Options,
  body: (command: ManagerCommand & Options) => Promise<number>,
): Promise<void> {
  const api = new ManagerApi(settings.managerUrl, { token: settings.apiToken });
  return act((signal) => body({ ...options, api, signal }));
}

const listIdFor = ({ settings }: Program, nameOrId: string, signal: AbortSignal) =>
  resolveListId(nameOrId, { databaseUrl: settings.databaseUrl, signal });

const optionalListId = async (program: Program, nameOrId: string | undefined, signal: AbortSignal) =>
  nameOrId === undefined ? undefined : listIdFor(program, nameOrId, signal);

function paged(command: Command, what: string, fallback: number): Command {
  return command
    .option("--limit <n>", `${what} at most`, positive, fallback)
    .option("--all", `all ${what}, page by page`, false)
    .addOption(jsonOption());
}

const environment =
  "LIM_MANAGER_URL, LIM_API_TOKEN; DATABASE_URL where a list is named by its name.\nTimes: RFC 3339, a date, or a span before now like 90m or 7d.";
const described = (command: Command, ...examples: string[]) => helpBelow(command, { examples, environment });

const limitOf = ({ limit, all }: PageOptions) => (all ? Number.POSITIVE_INFINITY : limit);

function filtered(command: Command): Command {
  return command
    .option("--ids <ids>", "task ids separated by commas")
    .option("--list <list>", "of one list: its id, or its name where DATABASE_URL is set")
    .option("--statuses <statuses>", "pending, indexing, success, error; several separated by commas")
    .option("--indexer <origin>", "that this indexer has or had, like http://host:5180")
    .option("--since <time>", "created at or after it: RFC 3339, a date, or a span before now like 90m, 7d")
    .option("--until <time>", "created before it")
    .option("--started-since <time>", "started at or after it")
    .option("--started-until <time>", "started before it")
    .option("--ended-since <time>", "ended at or after it")
    .option("--ended-until <time>", "ended before it");
}

async function filterOf(program: Program, options: FilterOptions, signal: AbortSignal): Promise<TaskQuery> {
  const nowMs = Date.now();
  const time = (text: string | undefined) => (text === undefined ? undefined : timeOf(text, nowMs));
  return {
    task_ids: options.ids,
    statuses: options.statuses,
    list_id: await optionalListId(program, options.list, signal),
    indexer: options.indexer,
    create_time__gte: time(options.since),
    create_time__lt: time(options.until),
    start_time__gte: time(options.startedSince),
    start_time__lt: time(options.startedUntil),
    end_time__gte: time(options.endedSince),
    end_time__lt: time(options.endedUntil),
  };
}

function consenting(command: Command): Command {
  return command
    .option("--dry-run", "only show what would be removed", false)
    .option("--yes", "remove without asking, however many", false);
}

function addTaskCommands(root: Command, program: Program): void {
  const tasks = root.command("tasks").description("index builds");
  const list = paged(
    filtered(tasks.command("list", { isDefault: true }).description("tasks, the newest first")),
    "tasks",
    20,
  ).option("--watch", "again whenever something has changed, until Ctrl-C", false);
  described(
    list,
    "lim tasks list --statuses pending,indexing --watch",
    "lim tasks list --list staff --since 7d --all --json",
  ).action((options: FilterOptions & PageOptions & { watch: boolean; json: boolean }) =>
    asked(program, options, async (command) =>
      (options.watch ? watchTasks : listTasks)({
        ...command,
        filter: await filterOf(program, options, command.signal),
        limit: limitOf(options),
      }),
    ),
  );
  tasks
    .command("show")
    .description("everything about one task")
    .argument("<task_id>", "the task", uuid)
    .addOption(jsonOption())
    .action((taskId: string, options: { json: boolean }) =>
      asked(program, options, (command) => showTask({ ...command, taskId })),
    );
  const create = tasks
    .command("create")
    .description("build an index of a list now")
    .argument("[list]", "list to index: its id, or its name where DATABASE_URL is set")
    .option("--list <list>", "the same")
    .addOption(new Option("--mode <mode>", "how").choices(buildModeSchema.options).default("rebuild"))
    .addOption(
      new Option("--priority <priority>", "those of a higher one are dispatched first")
        .choices(callerPrioritySchema.options)
        .default("default"),
    )
    .option("--watch", "follow it to its end; exit code 1 where it fails", false)
    .addOption(jsonOption());
  described(
    create,
    "lim tasks create staff --watch",
    "lim tasks create staff --mode update --priority high --json",
  ).action(
    (
      list: string | undefined,
      options: Pick<CreateTaskBody, "mode" | "priority"> & { list?: string; watch: boolean; json: boolean },
      self: Command,
    ) => {
      const nameOrId = list ?? options.list;
      if (nameOrId === undefined || (list !== undefined && options.list !== undefined))
        return self.error("error: name one list: lim tasks create <list>", { exitCode: 2 });
      return asked(program, options, async (command) =>
        createTask({ ...command, listId: await listIdFor(program, nameOrId, command.signal) }),
      );
    },
  );
  tasks
    .command("watch")
    .description("follow a task to its end; exit code 1 where it fails or is removed")
    .argument("<task_id>", "the task", uuid)
    .addOption(jsonOption())
    .action((taskId: string, options: { json: boolean }) =>
      asked(program, options, (command) => watchToEnd({ ...command, taskId })),
    );
  tasks
    .command("cancel")
    .description("remove a task; a running build is stopped")
    .argument("<task_id>", "the task", uuid)
    .addOption(jsonOption())
    .action((taskId: string, options: { json: boolean }) =>
      asked(program, options, (command) => cancelTask({ ...command, taskId })),
    );
}

function addTaskRemoval(tasks: Command, program: Program): void {
  const remove = tasks
    .command("remove")
    .description("remove the tasks that match every filter given; running builds are stopped");
  described(
    remove,
    "lim tasks remove --statuses success,error --ended-until 30d --dry-run",
    "lim tasks remove --list staff --statuses pending --yes",
  );
  consenting(filtered(remove))
    .option("--limit <n>", "tasks at most, the newest first (default: all that match)", positive)
    .addOption(jsonOption())
    .action((options: FilterOptions & ConsentOptions & { limit?: number; json: boolean }) =>
      asked(program, options, async (command) =>
        removeTasks({
          ...command,
          filter: await filterOf(program, options, command.signal),
          limit: options.limit ?? Number.POSITIVE_INFINITY,
          isTerminal: process.stdin.isTTY === true,
        }),
      ),
    );
}

function addQueueCommand(root: Command, program: Program): void {
  const queue = root.command("queue").description("pending tasks in the order of their dispatch");
  paged(queue, "tasks", 20).action((options: PageOptions & { json: boolean }) =>
    asked(program, options, (command) => listQueue({ ...command, limit: limitOf(options) })),
  );
}

function addIndexCommands(root: Command, program: Program): void {
  const indexes = root.command("indexes").description("published indexes");
  const labelText = "of one list: its id, or its name where DATABASE_URL is set";
  const list = indexes
    .command("list", { isDefault: true })
    .description("what the storage holds, of a list the newest first")
    .option("--label <list>", labelText)
    .option("--descriptor-version <n>", "of one version of descriptors", positive);
  paged(list, "indexes", 100).action(
    (options: PageOptions & { label?: string; descriptorVersion?: number; json: boolean }) =>
      asked(program, options, async (command) =>
        listIndexes({
          ...command,
          label: await optionalListId(program, options.label, command.signal),
          descriptorVersion: options.descriptorVersion,
          limit: limitOf(options),
        }),
      ),
  );
  indexes
    .command("relevant")
    .description("the index of each list that matchers serve")
    .argument("[list]", labelText)
    .addOption(jsonOption())
    .action((nameOrId: string | undefined, options: { json: boolean }) =>
      asked(program, options, async (command) =>
        listRelevantIndexes({
          ...command,
          label: await optionalListId(program, nameOrId, command.signal),
        }),
      ),
    );
  const remove = indexes
    .command("remove")
    .description("remove one index, or several by --outdated or --all")
    .argument("[index_id]", "the index", uuid)
    .addOption(new Option("--outdated", "those whose list has a newer one").conflicts("all"))
    .option("--all", "every one, the newest included: nothing is served until lists are built again")
    .option("--label <list>", `with --outdated or --all, ${labelText}`);
  described(
    remove,
    "lim indexes remove --outdated --dry-run",
    "lim indexes remove --all --label staff --yes",
  );
  consenting(remove)
    .addOption(jsonOption())
    .action(
      (
        indexId: string | undefined,
        options: ConsentOptions & { outdated?: true; all?: true; label?: string; json: boolean },
      ) =>
        asked(program, options, async (command) =>
          removeIndexes({
            ...command,
            indexId,
            policy: options.all ? "all" : options.outdated ? "outdated" : undefined,
            label: await optionalListId(program, options.label, command.signal),
            isTerminal: process.stdin.isTTY === true,
          }),
        ),
    );
}

function addPreviewCommands(root: Command, program: Program): void {
  const plan = root
    .command("plan")
    .description("what the next planning would do with each list, and why; changes nothing")
    .option("--list <list>", "one list: its id, or its name where DATABASE_URL is set")
    .addOption(new Option("--action <action>", "only these").choices(["create", "skip"]));
  described(plan, "lim plan", "lim plan --list staff", "lim plan --action create --all --json");
  paged(plan, "lists", 100).action(
    (options: PageOptions & { list?: string; action?: "create" | "skip"; json: boolean }) =>
      asked(program, options, async (command) =>
        showPlan({
          ...command,
          listId: await optionalListId(program, options.list, command.signal),
          action: options.action,
          limit: limitOf(options),
        }),
      ),
  );
  root
    .command("retention")
    .description("what the next run of retention would remove, and why; changes nothing")
    .addOption(jsonOption())
    .action((options: { json: boolean }) => asked(program, options, showRetention));
}
