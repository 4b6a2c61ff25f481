import { allCommands, type CommandNode, type OptionNode, optionsAt, type Value } from "./tree.ts";

const quoted = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

/** A script for fish 3 and newer. */
export function fishScript(root: CommandNode): string {
  return `# completion of lim for fish: lim completion fish > ~/.config/fish/completions/lim.fish
# Whether the command so far is the words of the first argument, and none of the second comes next.
function __lim_at --argument-names path below
  set -l words
  for word in (commandline -opc)[2..]
    string match -q -- '-*' $word; or set -a words $word
  end
  set -l wanted (string split -n ' ' -- $path)
  set -l depth (count $wanted)
  if test $depth -gt 0
    test (count $words) -ge $depth; and test "$words[1..$depth]" = "$path"; or return 1
  end
  set -l next (math $depth + 1)
  test (count $words) -lt $next; or not contains -- $words[$next] (string split -n ' ' -- $below)
end
complete -c lim -f
${allCommands(root).flatMap(linesOf).join("\n")}`;
}

function linesOf(node: CommandNode): string[] {
  const below = node.commands.map(({ path }) => path.at(-1) ?? "");
  const condition = `__lim_at "${node.path.join(" ")}" "${below.join(" ")}"`;
  const head = `complete -c lim -n ${quoted(condition)}`;
  const commands = node.commands.map(
    ({ path, text }) => `${head} -a ${quoted(path.at(-1) ?? "")} -d ${quoted(text)}`,
  );
  const argument = node.argument === undefined ? [] : [`${head} ${completing(node.argument)}`];
  return [...commands, ...argument, ...optionsAt(node).map((option) => optionLine(head, option))];
}

function optionLine(head: string, { flag, text, value }: OptionNode): string {
  const taken = value === undefined ? "" : ` -r ${completing(value)}`;
  return `${head} -l ${flag.slice(2)}${taken} -d ${quoted(text)}`;
}

function completing(value: Value): string {
  switch (value.kind) {
    case "choices":
      return `-f -a ${quoted(value.choices.join(" "))}`;
    case "file":
      return "-F";
    case "text":
      return "-f";
  }
}
