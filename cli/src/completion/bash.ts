import { allCommands, type CommandNode, optionsAt, type Value } from "./tree.ts";

const words = (texts: readonly string[]) => texts.join(" ");
const key = (path: readonly string[]) => (path.length === 0 ? "_" : path.join(" "));

/** A script for bash 3.2 and newer, without the package bash-completion. */
export function bashScript(root: CommandNode): string {
  const commands = allCommands(root);
  return `# completion of lim for bash: source <(lim completion bash)
_lim() {
  local cur=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} at="" i word
  # The command so far: words that lead down the tree.
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case "\${at:+$at }$word" in
${commands
  .filter(({ path }) => path.length > 0)
  .map(({ path }) => `      "${key(path)}") at="${key(path)}" ;;`)
  .join("\n")}
    esac
  done
  COMPREPLY=()
  case "\${at:-_}|$previous" in
${commands.flatMap(valueCases).join("\n")}
  esac
  if [[ $cur == -* ]]; then
    case "\${at:-_}" in
${commands.map((node) => `      "${key(node.path)}") COMPREPLY=($(compgen -W "${words(optionsAt(node).map(({ flag }) => flag))}" -- "$cur")) ;;`).join("\n")}
    esac
    return
  fi
  case "\${at:-_}" in
${commands.flatMap(argumentCases).join("\n")}
  esac
}
complete -o filenames -F _lim lim`;
}

function valueCases(node: CommandNode): string[] {
  return optionsAt(node).flatMap(({ flag, value }) =>
    value === undefined ? [] : [`    "${key(node.path)}|${flag}") ${replyOf(value)}; return ;;`],
  );
}

function argumentCases(node: CommandNode): string[] {
  const names = node.commands.map(({ path }) => path.at(-1) ?? "");
  if (names.length > 0)
    return [`    "${key(node.path)}") ${replyOf({ kind: "choices", choices: names })} ;;`];
  return node.argument === undefined ? [] : [`    "${key(node.path)}") ${replyOf(node.argument)} ;;`];
}

function replyOf(value: Value): string {
  switch (value.kind) {
    case "choices":
      return `COMPREPLY=($(compgen -W "${words(value.choices)}" -- "$cur"))`;
    case "file":
      return `COMPREPLY=($(compgen -f -- "$cur"))`;
    case "text":
      return ":";
  }
}
