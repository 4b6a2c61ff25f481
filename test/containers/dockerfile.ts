/** One instruction of a Dockerfile, its lines joined; `flags` are the leading --name=value. */
export interface Instruction {
  op: string;
  flags: Readonly<Record<string, string>>;
  text: string;
  line: number;
}

export interface Stage {
  name: string;
  /** Image or name of an earlier stage, with arguments filled in. */
  from: string;
  instructions: Instruction[];
}

const known: ReadonlySet<string> = new Set([
  "ARG",
  "FROM",
  "RUN",
  "COPY",
  "ENV",
  "WORKDIR",
  "USER",
  "EXPOSE",
  "HEALTHCHECK",
  "ENTRYPOINT",
  "CMD",
]);

/** The stages of a Dockerfile in their order. Throws with the line where it is not of the forms that we use. */
export function parseDockerfile(source: string): { args: Map<string, string>; stages: Stage[] } {
  const args = new Map<string, string>();
  const stages: Stage[] = [];
  for (const instruction of instructionsOf(source)) {
    const { op, text, line } = instruction;
    if (!known.has(op)) throw new Error(`line ${line}: unknown instruction ${op}`);
    if (op === "ARG") {
      const [, name = "", value = ""] = /^(\w+)=(\S+)$/.exec(text) ?? [];
      args.set(name, value);
    } else if (op === "FROM") {
      const [, from = "", name = ""] = /^(\S+) AS ([a-z][a-z-]*)$/.exec(text) ?? [];
      if (name === "") throw new Error(`line ${line}: FROM must be <image> AS <name>`);
      const filled = from.replace(/\$\{(\w+)\}/g, (_, arg: string) => args.get(arg) ?? `?${arg}`);
      stages.push({ name, from: filled, instructions: [] });
    } else {
      const stage = stages.at(-1);
      if (stage === undefined) throw new Error(`line ${line}: ${op} before FROM`);
      stage.instructions.push(instruction);
    }
  }
  return { args, stages };
}

function instructionsOf(source: string): Instruction[] {
  const found: Instruction[] = [];
  const lines = source.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const first = i;
    let joined = lines[i] ?? "";
    if (/^\s*(#|$)/.test(joined)) continue;
    while (joined.endsWith("\\")) joined = joined.slice(0, -1) + (lines[++i] ?? "").trimStart();
    const [, op = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(joined) ?? [];
    const flags: Record<string, string> = {};
    let text = rest;
    for (let flag = flagOf(text); flag !== undefined; flag = flagOf(text)) {
      flags[flag.name] = flag.value;
      text = flag.rest;
    }
    found.push({ op, flags, text, line: first + 1 });
  }
  return found;
}

function flagOf(text: string): { name: string; value: string; rest: string } | undefined {
  const [, name, value, rest] = /^--([a-z-]+)=(\S+)\s+(.*)$/.exec(text) ?? [];
  return name === undefined || value === undefined || rest === undefined ? undefined : { name, value, rest };
}

/** The instructions of a stage after those of the stages that it is made from. */
export function wholeStage(stages: readonly Stage[], name: string): Instruction[] {
  const stage = stages.find((candidate) => candidate.name === name);
  if (stage === undefined) return [];
  return [...wholeStage(stages, stage.from), ...stage.instructions];
}

/** NAME=value pairs of ENV, without quotes, as we write them. */
export function envOf(instructions: readonly Instruction[]): Record<string, string> {
  const env: Record<string, string> = {};
  for (const { op, text } of instructions)
    if (op === "ENV")
      for (const pair of text.split(/\s+/)) env[pair.split("=")[0] ?? ""] = pair.slice(pair.indexOf("=") + 1);
  return env;
}

/** Whether .dockerignore lets a path of the context in: the last pattern that fits it or a folder above it decides. */
export function isInContext(dockerignore: string, path: string): boolean {
  const parts = path.split("/");
  const prefixes = parts.map((_, i) => parts.slice(0, i + 1).join("/"));
  let isIn = true;
  for (const line of dockerignore.split("\n")) {
    const text = line.trim();
    if (text === "" || text.startsWith("#")) continue;
    const pattern = patternOf(text.replace(/^!/, ""));
    if (prefixes.some((prefix) => pattern.test(prefix))) isIn = text.startsWith("!");
  }
  return isIn;
}

function patternOf(glob: string): RegExp {
  const escaped = glob
    .replace(/[.+^$()|[\]{}]/g, "\\$&")
    .replaceAll("**/", "\0")
    .replaceAll("*", "[^/]*");
  return new RegExp(`^${escaped.replaceAll("\0", "(?:.*/)?")}$`);
}
