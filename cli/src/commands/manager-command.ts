import { createInterface } from "node:readline/promises";
import { LimError } from "@lim/contracts";
import type { ManagerApi } from "../api/manager-api.ts";
import type { Pages } from "../api/pages.ts";

/** What every command that asks the manager gets. */
export interface ManagerCommand {
  api: ManagerApi;
  json: boolean;
  signal: AbortSignal;
}

/** JSON on one line, or text for people. */
export function print(command: Pick<ManagerCommand, "json">, value: unknown, text: () => string): void {
  console.log(command.json ? JSON.stringify(value) : text());
}

/** Says that a listing goes on; to standard error, so that what reads the table or JSON is not disturbed. */
export function noteMore({ items, total, nextCursor }: Pages<unknown>, what: string): void {
  if (nextCursor === null) return;
  const shown = items.length.toLocaleString("en-US");
  const of = total === undefined ? "" : ` of ${total.toLocaleString("en-US")}`;
  console.error(`(the first ${shown}${of} ${what}: --limit N shows more, --all shows all)`);
}

export interface RemovalConsent {
  yes: boolean;
  /** A terminal where one can be asked. */
  isTerminal: boolean;
}

/**
 * Whether several things may be removed: with `--yes`, or after a look at them and a "y" on a terminal. Throws
 * bad_input where nobody can be asked.
 */
export async function mayRemove(
  { yes, isTerminal }: RemovalConsent,
  removal: { what: string; show: () => string },
  signal: AbortSignal,
): Promise<boolean> {
  if (yes) return true;
  if (!isTerminal)
    throw new LimError(
      "bad_input",
      `this would remove ${removal.what}: add --yes to do it, or --dry-run to see them`,
    );
  console.error(removal.show());
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  try {
    // Ctrl-C and Ctrl-D close the prompt and answer nothing.
    const closed = new Promise<string>((resolve) => prompt.once("close", () => resolve("")));
    const answer = await Promise.race([
      prompt.question(`Remove ${removal.what}? [y/N] `, { signal }),
      closed,
    ]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    prompt.close();
  }
}

export const counted = (count: number, one: string, many = `${one}s`) =>
  `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;
