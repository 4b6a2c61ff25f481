import { readdir, readFile } from "node:fs/promises";

/** Names of the engines' threads, as the system has them. */
const engineThreads = new Set(["hnsw", "lim-hnswlib"]);

/**
 * Seconds of processor that the engines' threads of a process have used, by the system's own clock of each thread: searches,
 * and what it costs a thread to be given them. Undefined where the system does not tell (it is Linux that does).
 */
export async function engineCpuSeconds(pid: number): Promise<number | undefined> {
  try {
    let nanoseconds = 0;
    for (const thread of await readdir(`/proc/${pid}/task`)) {
      const at = `/proc/${pid}/task/${thread}`;
      const name = (await readFile(`${at}/comm`, "utf8")).trim();
      if (!engineThreads.has(name)) continue;
      nanoseconds += Number((await readFile(`${at}/schedstat`, "utf8")).split(" ")[0]);
    }
    return nanoseconds > 0 ? nanoseconds / 1e9 : undefined;
  } catch {
    return undefined;
  }
}
