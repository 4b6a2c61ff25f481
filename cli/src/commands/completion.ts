import { type Command, InvalidArgumentError } from "commander";
import { bashScript } from "../completion/bash.ts";
import { fishScript } from "../completion/fish.ts";
import { treeOf } from "../completion/tree.ts";
import { zshScript } from "../completion/zsh.ts";
import { helpBelow } from "../options.ts";
import { exitCodes, type Program } from "../program.ts";

const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript } as const;
type Shell = keyof typeof scripts;
const shells = Object.keys(scripts) as Shell[];

export function addCompletionCommand(root: Command, { act }: Program): void {
  const completion = root
    .command("completion")
    .description("print a script that completes commands and options in a shell")
    .argument("<shell>", shells.join(", "), shellOf);
  helpBelow(completion, {
    examples: [
      "source <(lim completion bash)      # in this shell; put the line into ~/.bashrc for all",
      "source <(lim completion zsh)       # after compinit; or in ~/.zshrc",
      "lim completion fish > ~/.config/fish/completions/lim.fish",
    ],
  }).action((shell: Shell) =>
    act(async () => {
      console.log(scripts[shell](treeOf(root)));
      return exitCodes.done;
    }),
  );
}

function shellOf(text: string): Shell {
  const found = shells.find((shell) => shell === text);
  if (found === undefined) throw new InvalidArgumentError(`must be ${shells.join(", ")}.`);
  return found;
}
