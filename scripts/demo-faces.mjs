// Writes files of synthetic faces to try LIM with (how they are made: packages/testkit/README.md). For each list
// NAME.f32 and NAME.csv, which `lim import NAME.f32 --names NAME.csv` takes, and NAME-query.json: another image of
// person-0 of that list, which `lim match --descriptor` must find first.
//   node scripts/demo-faces.mjs [--out demo-faces] [--lists citizens=20000,staff=500] [--dim 512]
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { createFaceGenerator, defaultFaceModel } from "@lim/testkit";

const { values } = parseArgs({
  options: {
    out: { type: "string", default: "demo-faces" },
    lists: { type: "string", default: "citizens=20000,staff=500" },
    dim: { type: "string", default: String(defaultFaceModel.dim) },
  },
});
const dim = Number(values.dim);
const lists = values.lists.split(",").map((text) => {
  const [, name, count] = /^([a-z][a-z-]*)=([1-9]\d{0,7})$/.exec(text) ?? [];
  if (name === undefined) {
    console.error(`demo-faces: --lists must be like citizens=20000,staff=500, not "${values.lists}"`);
    process.exit(2);
  }
  return { name, count: Number(count) };
});
const share = defaultFaceModel.effectiveDim / defaultFaceModel.dim;
const generator = createFaceGenerator({ dim, effectiveDim: Math.max(2, Math.round(dim * share)) });
const rowsPerChunk = 1_000;

async function* rowsOf(firstPerson, count) {
  for (let done = 0; done < count; done += rowsPerChunk) {
    const rows = generator.matrix({
      firstPerson: firstPerson + done,
      persons: Math.min(rowsPerChunk, count - done),
    });
    yield new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
  }
}

await mkdir(values.out, { recursive: true });
let firstPerson = 0;
for (const { name, count } of lists) {
  const file = join(values.out, name);
  await pipeline(Readable.from(rowsOf(firstPerson, count)), createWriteStream(`${file}.f32`));
  const names = Array.from({ length: count }, (_, i) => `person-${i}`);
  await writeFile(`${file}.csv`, `external_id\n${names.join("\n")}\n`);
  const descriptor = [...generator.vector(firstPerson, 1)];
  await writeFile(`${file}-query.json`, JSON.stringify({ descriptor }));
  console.log(`${file}.f32: ${count} faces of ${dim} dimensions`);
  firstPerson += count;
}
