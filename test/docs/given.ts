import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { createFaceGenerator } from "@lim/testkit";
import { root } from "./blocks.ts";

/** Dimensions of the descriptors in the pages, which is LIM's default. */
export const dim = 512;
const faces = 60;

/** A folder with what a reader of the pages has at hand, in which their blocks run. */
export interface Given {
  folder: string;
  /** First folder of the PATH. */
  bin: string;
  descriptor: number[];
  remove(): Promise<void>;
}

export async function prepare(): Promise<Given> {
  // Below the root, so that packages are found, and where nothing is taken into git.
  const folder = join(root, "reports", `docs-${process.pid}`);
  const bin = join(folder, "bin");
  await rm(folder, { recursive: true, force: true });
  await mkdir(bin, { recursive: true });
  const generator = createFaceGenerator();
  const rows = generator.matrix({ firstPerson: 0, persons: faces });
  const rowOf = (i: number) => [...rows.subarray(i * dim, (i + 1) * dim)];
  const descriptor = [...generator.vector(0, 1)];
  const ids = Array.from({ length: faces }, (_, i) => `person-${i}`);
  const write = (name: string, content: string | Uint8Array) => writeFile(join(folder, name), content);
  await Promise.all([
    write("faces.f32", new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength)),
    write("faces.csv", `external_id\n${ids.join("\n")}\n`),
    write(
      "faces.ndjson",
      ids.map((id, i) => JSON.stringify({ external_id: id, descriptor: rowOf(i) })).join("\n"),
    ),
    write("query.json", JSON.stringify({ descriptor })),
    // npx itself takes longer than the commands: this does the same for what is installed.
    write("bin/npx", `#!/bin/sh\nname=$1\nshift\nexec "${join(root, "node_modules/.bin")}/$name" "$@"\n`),
  ]);
  await chmod(join(bin, "npx"), 0o755);
  return {
    folder,
    bin: [bin, dirname(process.execPath)].join(delimiter),
    descriptor,
    remove: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }),
  };
}
