import { PassThrough } from "node:stream";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import type pg from "pg";
import { expect, it } from "vitest";
import { CopyOut } from "../src/copy-out.ts";

function message(code: string, content: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(5);
  head.write(code, "latin1");
  head.writeUInt32BE(content.length + 4, 1);
  return Buffer.concat([head, content]);
}

/** A connection as node-postgres has it, that was given the chunks, and what became of them. */
async function copied(chunks: readonly Buffer[]) {
  const stream = new PassThrough();
  const forPg: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => forPg.push(chunk));
  const content: Buffer[] = [];
  const copy = new CopyOut("COPY", {
    onContent: (chunk, from, to) => content.push(Buffer.from(chunk.subarray(from, to))),
    onChunk: () => 0,
  });
  copy.submit({ stream, query: () => {} } as unknown as pg.Connection);
  for (const chunk of chunks) stream.write(chunk);
  for (let i = 0; i <= chunks.length; i++) await setImmediate();
  return { copy, stream, content: Buffer.concat(content), forPg: Buffer.concat(forPg) };
}

const contents = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 });
const cutsOf = fc.array(fc.nat(), { maxLength: 12 });
const cut = (bytes: Buffer, cuts: readonly number[]) => {
  const places = [0, ...cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((to, i) => bytes.subarray(places[i], to));
};

it.each([
  ["the end of the copy", message("c"), message("C", Buffer.from("COPY 3\0")), ""],
  ["an error", Buffer.alloc(0), message("E", Buffer.from("SERROR\0\0")), "E"],
])("a copy hands on its content, and node-postgres gets what follows %s", async (_name, last, rest) => {
  await fc.assert(
    fc.asyncProperty(contents, cutsOf, async (parts, cuts) => {
      const notice = message("N", Buffer.from("Mhello\0"));
      const wire = [
        message("H", new Uint8Array(7)),
        ...parts.map((part) => message("d", part)),
        notice,
        last,
      ];
      const seen = await copied(cut(Buffer.concat([...wire, rest]), cuts));
      expect(seen.content).toEqual(Buffer.concat(parts));
      expect(seen.forPg).toEqual(rest);
    }),
    { numRuns: 50 },
  );
});

it("a copy ends with an error, and its connection too, at a message that has no place in it", async () => {
  const { copy, stream } = await copied([message("H"), message("D", Buffer.from("row"))]);
  await expect(copy.ended).rejects.toThrow('message "D"');
  expect(stream.destroyed).toBe(true);
});
