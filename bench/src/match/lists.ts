import { type BenchList, makeLists } from "../build/lists.ts";
import type { Options } from "./options.ts";
import type { MatchLists, Run } from "./run.ts";

/** Faces of each list that the parts need, and what it is for. */
export function listsFor(options: Options): { part: keyof MatchLists; faces: number }[] {
  const { only, faces, reloadFaces, labels, labelFaces } = options;
  const wanted: { part: keyof MatchLists; faces: number }[] = [];
  if (only.includes("throughput")) wanted.push({ part: "throughput", faces });
  if (only.includes("reload")) wanted.push({ part: "reload", faces: reloadFaces });
  if (only.includes("startup"))
    for (let i = 0; i < labels; i++) wanted.push({ part: "startup", faces: labelFaces });
  return wanted.toSorted((a, b) => a.faces - b.faces);
}

/** Lists of the first faces of the file, each for its part. */
export async function makeMatchLists(
  run: Omit<Run, "lists" | "queriesPath" | "redisUrl" | "dir">,
): Promise<MatchLists> {
  const { db, options, postgresUrl, rowsPath, signal, say } = run;
  const wanted = listsFor(options);
  const sizes = wanted.map(({ faces }) => faces);
  const { dim } = options;
  const made = await makeLists(db, { databaseUrl: postgresUrl, rowsPath, dim, sizes, signal, say });
  say(`imported ${made.importPerS.toFixed(0)} faces/s`);
  const of = (part: keyof MatchLists): BenchList[] => made.sized.filter((_, i) => wanted[i]?.part === part);
  return { throughput: of("throughput")[0], reload: of("reload")[0], startup: of("startup") };
}
