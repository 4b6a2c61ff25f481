import { allCommands, type CommandNode, type OptionNode, optionsAt, type Value } from "./tree.ts";

/** Inside single quotes, and with what \`_arguments\` and \`_describe\` read as marks of their own escaped. */
const quoted = (text: string) => text.replaceAll("'", "'\\''").replaceAll(/[[\]:]/g, "\\$&");
const functionOf = (path: readonly string[]) => ["_lim", ...path].join("_").replaceAll("-", "_");

/** A script for zsh with compinit: one function for each command. */
export function zshScript(root: CommandNode): string {
  return `#compdef lim
# completion of lim for zsh: source <(lim completion zsh)
${allCommands(root).map(commandFunction).join("\n")}
compdef _lim lim`;
}

function commandFunction(node: CommandNode): string {
  const name = functionOf(node.path);
  const options = optionsAt(node).map(optionSpec);
  if (node.commands.length === 0) {
    const argument = node.argument === undefined ? [] : [`'1:${actionOf(node.argument, "argument")}'`];
    return `${name}() {
  _arguments ${[...options, ...argument].join(" \\\n    ")}
}`;
  }
  const names = node.commands.map(({ path, text }) => `'${quoted(path.at(-1) ?? "")}:${quoted(text)}'`);
  const cases = node.commands.map(({ path }) => `    ${path.at(-1)}) ${functionOf(path)} ;;`);
  return `${name}() {
  local context state line
  local -a commands=(${names.join(" ")})
  _arguments -C ${[...options, "'1: :->command'", "'*:: :->rest'"].join(" \\\n    ")}
  case $state in
    command) _describe command commands ;;
    rest) case $line[1] in
${cases.join("\n")}
    esac ;;
  esac
}`;
}

function optionSpec({ flag, text, value }: OptionNode): string {
  const head = `${flag}[${quoted(text)}]`;
  return value === undefined ? `'${head}'` : `'${head}:${actionOf(value, "value")}'`;
}

function actionOf(value: Value, what: string): string {
  switch (value.kind) {
    case "choices":
      return `${what}:(${value.choices.join(" ")})`;
    case "file":
      return `${what}:_files`;
    case "text":
      return `${what}: `;
  }
}
