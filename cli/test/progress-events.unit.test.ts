import fc from "fast-check";
import { expect, test } from "vitest";
import { parseEvents } from "../src/api/progress-stream.ts";

async function* chunksOf(text: string, cuts: readonly number[]) {
  const places = [...new Set(cuts.map((cut) => cut % (text.length + 1)))].sort((a, b) => a - b);
  let start = 0;
  for (const place of [...places, text.length]) {
    yield text.slice(start, place);
    start = place;
  }
}
async function parsed(text: string, cuts: readonly number[] = []) {
  const events: { name: string; data: string }[] = [];
  for await (const event of parseEvents(chunksOf(text, cuts))) events.push(event);
  return events;
}

test("names, data of several lines, comments and fields that are not known", async () => {
  const text =
    ': hello\n\nevent: progress\ndata: {"a":1}\nid: 4\n\nevent:end\ndata:x\ndata: y\n\ndata: z\n\n';
  expect(await parsed(text)).toEqual([
    { name: "progress", data: '{"a":1}' },
    { name: "end", data: "x\ny" },
    { name: "message", data: "z" },
  ]);
});

test("an event that is cut off by the end of the stream is not given out", async () => {
  expect(await parsed("event: end\ndata: x\n")).toEqual([]);
});

test("however the text is cut into chunks and its lines end, the events are the same", async () => {
  const word = fc.stringMatching(/^[a-z{}": ]{0,12}$/);
  const event = fc.record({ name: fc.stringMatching(/^[a-z]{1,8}$/), data: word });
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 5 }),
      fc.constantFrom("\n", "\r\n", "\r"),
      fc.array(fc.nat()),
      async (events, end, cuts) => {
        const text = events
          .map(({ name, data }) => `event: ${name}${end}data: ${data}${end}: beat${end}${end}`)
          .join("");
        // A lone CR at the very end could be the first half of CRLF: what follows it decides.
        expect(await parsed(end === "\r" ? `${text}: last` : text, cuts)).toEqual(events);
      },
    ),
  );
});
