import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { defaultKeyNames, Keys, streamTags } from "../src/keys.ts";
import { slotCount, slotOf } from "../src/slots.ts";

describe("names of match streams", () => {
  const sixteenth = slotCount / streamTags.length;
  const label = "3f0e6f2a-9a39-4e0e-8f0a-1d2b3c4d5e6f";

  it("are what existing clients know on one server", () => {
    expect(new Keys(defaultKeyNames).matchStream(label)).toBe(`lim_match:${label}`);
    expect(new Keys({ ...defaultKeyNames, matchStreamPrefix: "" }).matchStream(label)).toBe(label);
  });

  it("in a cluster lie in one of sixteen slots, spread over all of them", () => {
    expect(slotOf("foo")).toBe(12_182);
    expect(streamTags.map((tag) => Math.floor(slotOf(tag) / sixteenth))).toEqual(
      streamTags.map((_, at) => at),
    );
    const page = readFileSync(new URL("../../../docs/redis.md", import.meta.url), "utf8");
    const keys = new Keys(defaultKeyNames, true);
    expect(page).toContain(`\n${streamTags.join(" ")}\n`);
    expect(page).toContain(`slot ${slotOf(label)}, so its stream is \`${keys.matchStream(label)}\``);
    expect(keys.matchStream(label)).toBe(
      `lim_match:{${streamTags[Math.floor(slotOf(label) / 1_024)]}}:${label}`,
    );
    const slots = new Set(Array.from({ length: 1_000 }, () => slotOf(keys.matchStream(randomUUID()))));
    expect(slots).toEqual(new Set(streamTags.map(slotOf)));
  });

  it("in a cluster stay as they are without a prefix, or with one that has its own tag", () => {
    for (const matchStreamPrefix of ["", "{mine}:"])
      expect(new Keys({ ...defaultKeyNames, matchStreamPrefix }, true).matchStream(label)).toBe(
        `${matchStreamPrefix}${label}`,
      );
  });
});
