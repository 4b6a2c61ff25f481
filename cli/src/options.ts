import { engineNames, uuidSchema } from "@lim/contracts";
import { type Command, InvalidArgumentError, Option } from "commander";

export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError("must be a positive integer.");
  return value;
}

export function share(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0 && value <= 1))
    throw new InvalidArgumentError("must be a number from 0 to 1.");
  return value;
}

export function uuid(text: string): string {
  const parsed = uuidSchema.safeParse(text);
  if (!parsed.success) throw new InvalidArgumentError("must be a UUID.");
  return parsed.data;
}

export function engineOption(): Option {
  return new Option("--engine <engine>", "engine of new indexes").choices([...engineNames]);
}

export const jsonOption = (text = "print JSON") => new Option("--json", text).default(false);

/** What stands below the options: examples, then the environment that the command reads. */
export function helpBelow(
  command: Command,
  { examples, environment, more }: { examples: readonly string[]; environment?: string; more?: string },
): Command {
  const parts = [
    ...(more === undefined ? [] : [more]),
    `Examples:\n${examples.map((line) => `  ${line}`).join("\n")}`,
    ...(environment === undefined ? [] : [`Environment: ${environment}`]),
  ];
  return command.addHelpText("after", `\n${parts.join("\n\n")}`);
}
