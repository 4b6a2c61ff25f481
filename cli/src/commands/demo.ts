import type { EngineName } from "@lim/contracts";
import type { Command } from "commander";
import { runDemo } from "../demo/run.ts";
import { engineOption, helpBelow, jsonOption, positive } from "../options.ts";
import type { Program } from "../program.ts";

interface DemoOptions {
  faces?: string;
  names?: string;
  dim: number;
  report: string;
  engine: EngineName;
  json: boolean;
}

export function addDemoCommand(root: Command, { ownSettings: settings, act }: Program): void {
  const demo = root
    .command("demo")
    .description(
      "import synthetic (or given) faces, index them, match, and check every answer against exact search",
    )
    .option("--faces <file>", "real descriptors instead of synthetic ones: raw float32, .f32 (needs --names)")
    .option("--names <file>", "CSV of who is on each row: columns identity and image")
    .option("--dim <n>", "numbers of a descriptor", positive, settings.dim)
    .option("--report <file>", "where the report goes", "reports/demo.json")
    .addOption(engineOption().default(settings.engine))
    .addOption(jsonOption("print the report as JSON; what happens goes to standard error"));
  helpBelow(demo, {
    examples: ["lim demo", "lim demo --faces faces.f32 --dim 128 --names faces.csv"],
    environment: "REDIS_URL, DATABASE_URL (unset: private servers that go with the demo).",
  }).action((options: DemoOptions) => act((signal) => runDemo({ settings, ...options, signal })));
}
