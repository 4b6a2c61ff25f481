import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";
import { abortable, abortedError, redisFailure } from "./failures.ts";
import type { Cancellable } from "./port.ts";

/** A Lua file of the room's `lua/` folder; its header names KEYS, ARGV and the reply. */
export interface Script<Reply> {
  readonly name: string;
  readonly source: string;
  readonly sha: string;
  readonly parse: (reply: unknown) => Reply;
}

/**
 * Reads `lua/<name>.lua` at once, so that a missing file shows at start and not at first use. `preludes` name files
 * of local functions that are put before it, in that order.
 */
export function loadScript<Reply>(
  name: string,
  parse: (reply: unknown) => Reply,
  ...preludes: readonly string[]
): Script<Reply> {
  const source = [...preludes, name].map(readLua).join("");
  return { name, source, sha: createHash("sha1").update(source).digest("hex"), parse };
}

function readLua(name: string): string {
  return readFileSync(new URL(`../lua/${name}.lua`, import.meta.url), "utf8");
}

/** Runs a script by its hash; a server that lost its script cache gets the text. Throws LimErrors only. */
export async function runScript<Reply>(
  client: Redis,
  script: Script<Reply>,
  input: { keys: readonly string[]; args: readonly (string | number | Buffer)[] },
  options?: Cancellable,
): Promise<Reply> {
  const call = async (): Promise<unknown> => {
    try {
      return await client.evalsha(script.sha, input.keys.length, ...input.keys, ...input.args);
    } catch (thrown) {
      if (!(thrown instanceof Error && thrown.message.startsWith("NOSCRIPT"))) throw thrown;
      return await client.eval(script.source, input.keys.length, ...input.keys, ...input.args);
    }
  };
  try {
    if (options?.signal?.aborted) throw abortedError(options.signal);
    return script.parse(await abortable(call(), options?.signal));
  } catch (thrown) {
    throw redisFailure(thrown, script.name);
  }
}
