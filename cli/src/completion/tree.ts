import type { Command, Option } from "commander";

/** What a value on the command line is. */
export type Value = { kind: "choices"; choices: readonly string[] } | { kind: "file" } | { kind: "text" };

export interface OptionNode {
  /** Like `--list`. */
  flag: string;
  text: string;
  /** Undefined where the option takes none. */
  value: Value | undefined;
}

/** A command as completion sees it. */
export interface CommandNode {
  /** Names from the root's first command on; empty for the root. */
  path: readonly string[];
  text: string;
  commands: readonly CommandNode[];
  options: readonly OptionNode[];
  /** Of the first argument that is no command; undefined where there is none. */
  argument: Value | undefined;
  /** Command that runs where none is named: its options go, too. */
  fallback: string | undefined;
}

/** Placeholders whose values are files. */
const filePlaceholder = /file/i;

export function treeOf(root: Command, path: readonly string[] = []): CommandNode {
  const commands = root.commands
    .filter((command) => !isHidden(command))
    .map((command) => treeOf(command, [...path, command.name()]));
  const help = root.createHelp();
  const [argument] = root.registeredArguments;
  const fallback = (root as Command & { _defaultCommandName?: string | null })._defaultCommandName;
  return {
    path,
    text: root.description(),
    commands,
    options: help.visibleOptions(root).flatMap((option) => optionNode(option)),
    argument: argument && toValue(argument.argChoices, argument.name(), argument.description),
    fallback: fallback ?? undefined,
  };
}

const isHidden = (command: Command) => (command as Command & { _hidden?: boolean })._hidden === true;

function optionNode(option: Option): OptionNode[] {
  if (option.long === undefined || option.long === null) return [];
  const takesValue = option.required || option.optional;
  return [
    {
      flag: option.long,
      text: option.description,
      value: takesValue ? toValue(option.argChoices, option.flags, "") : undefined,
    },
  ];
}

function toValue(choices: readonly string[] | undefined, placeholder: string, text: string): Value {
  if (choices !== undefined) return { kind: "choices", choices };
  // Shells are named in the text of their argument.
  const named = /^\w+(?:, \w+)+$/.test(text) ? text.split(", ") : undefined;
  if (named !== undefined) return { kind: "choices", choices: named };
  return filePlaceholder.test(placeholder) ? { kind: "file" } : { kind: "text" };
}

/** A command and all below it, the root first. */
export function allCommands(node: CommandNode): CommandNode[] {
  return [node, ...node.commands.flatMap(allCommands)];
}

/** What may stand after a command: its own options, and those of the command that runs where none is named. */
export function optionsAt(node: CommandNode): readonly OptionNode[] {
  const fallback = node.commands.find(({ path }) => path.at(-1) === node.fallback);
  if (fallback === undefined) return node.options;
  const flags = new Set(node.options.map(({ flag }) => flag));
  return [...node.options, ...fallback.options.filter(({ flag }) => !flags.has(flag))];
}
