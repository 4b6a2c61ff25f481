import { ManagerApi } from "../manager-api.ts";
import { formatTable } from "../output.ts";

interface Common {
  managerUrl: string;
  json: boolean;
  signal: AbortSignal;
}

export async function listIndexes(command: Common & { label?: string }): Promise<number> {
  const indexes = await new ManagerApi(command.managerUrl).indexes(
    command.label === undefined ? {} : { label: command.label },
    { signal: command.signal },
  );
  if (command.json) {
    console.log(JSON.stringify({ count: indexes.length, indexes }));
    return 0;
  }
  console.log(
    formatTable(
      ["index", "label", "faces", "revision", "MiB", "engine", "created"],
      indexes.map((index) => [
        index.index_id,
        index.label,
        String(index.count),
        String(index.revision),
        (index.size / 2 ** 20).toFixed(1),
        index.engine,
        index.create_time,
      ]),
    ),
  );
  return 0;
}

export async function removeIndex(command: Common & { indexId: string }): Promise<number> {
  await new ManagerApi(command.managerUrl).removeIndex(command.indexId, { signal: command.signal });
  console.log(
    command.json ? JSON.stringify({ removed: command.indexId }) : `index ${command.indexId} is removed`,
  );
  return 0;
}
