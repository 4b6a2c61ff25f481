#!/usr/bin/env node
import { Command, Help } from "commander";
import { addCheckCommand } from "./commands/check.ts";
import { addCompletionCommand } from "./commands/completion.ts";
import { addDemoCommand } from "./commands/demo.ts";
import { addDoctorCommand } from "./commands/doctor.ts";
import { addImportCommand } from "./commands/import.ts";
import { addMatchCommand } from "./commands/match.ts";
import { addMigrateCommand } from "./commands/migrate.ts";
import { addUpCommand } from "./commands/up.ts";
import { addManagerCommands } from "./manager-program.ts";
import {
  createAct,
  endQuietlyOnClosedPipe,
  exitCodes,
  exitCodesHelp,
  type Program,
  printError,
} from "./program.ts";
import { withRunningStack } from "./running-stack.ts";
import { readSettings } from "./settings.ts";

function settingsOrExit() {
  try {
    return readSettings();
  } catch (error) {
    printError(error);
    process.exit(exitCodes.wrongUse);
  }
}

endQuietlyOnClosedPipe();
const ownSettings = settingsOrExit();
let asJson = false;
const program: Program = {
  ownSettings,
  settings: await withRunningStack(ownSettings),
  act: createAct(() => asJson),
};

const root = new Command("lim")
  .description("LIM: index service for face recognition")
  .version("0.1.0")
  .configureHelp({
    // Of a flag that it is off by default says nothing.
    optionDescription: (option) =>
      Help.prototype.optionDescription.call(new Help(), option).replace(/ ?\(default: false\)$/, ""),
  })
  .showHelpAfterError("(lim --help, or lim <command> --help, lists what there is)")
  // Before the commands are added: they inherit it.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? exitCodes.done : exitCodes.wrongUse))
  .hook("preAction", (_, command) => {
    asJson = command.opts().json === true;
  })
  .addHelpText(
    "after",
    `
Begin with lim up: while it runs, the other commands on this machine find its servers by themselves.

Environment, of all commands (the options of a command win over it):
  REDIS_URL, DATABASE_URL                      servers; unset: those of the lim up that runs here
  LIM_MANAGER_URL, LIM_API_TOKEN               an Index Manager, and the token where it asks for one
  LIM_STORAGE_ROOT                             folder of the index storage (up, check, doctor)
  LIM_DESCRIPTOR_DIM, LIM_DESCRIPTOR_VERSION   of descriptors (${ownSettings.dim}, ${ownSettings.descriptorVersion})
  LIM_ENGINE                                   engine of new indexes (${ownSettings.engine})
  LIM_HOME                                     where lim up keeps its data (.lim in the checkout)

${exitCodesHelp}`,
  );

root.commandsGroup("Begin:");
addUpCommand(root, program);
addDemoCommand(root, program);
addDoctorCommand(root, program);
root.commandsGroup("Faces:");
addImportCommand(root, program);
addMatchCommand(root, program);
addMigrateCommand(root, program);
root.commandsGroup("Indexes:");
addManagerCommands(root, program);
addCheckCommand(root, program);
root.commandsGroup("Shell:");
addCompletionCommand(root, program);
root.helpCommand("help [command]", "display help for a command");

await root.parseAsync();
