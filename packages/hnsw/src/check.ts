import type { EngineExports } from "./exports.ts";
import { addressOf, controlAt, type Layout, segmentBits, segmentSlots } from "./layout.ts";
import { maxReportedProblems, noWord } from "./limits.ts";

/** What a walk over the whole graph found. */
export interface GraphReport {
  /** Slots in use, and how many of them are live, dead (removed, not swept yet) and free. */
  slots: number;
  live: number;
  dead: number;
  free: number;
  /** Live slots by the highest level they are on. */
  levels: number[];
  /** Links of live slots on all levels. */
  links: number;
  /** Links of live slots that lead to dead ones: repaired by the next sweep. */
  deadLinks: number;
  /** Links that lead nowhere, to the slot itself, to a free slot, or twice to the same. */
  badLinks: number;
  /** Live slots that level 0 does not lead to from the entry point. */
  unreachable: number;
  /** The first few things that must not be: none in a sound graph. */
  problems: string[];
}

/** Address of a slot's links on a level, by the same arithmetic as in assembly/state.ts. */
export function linksAddress(layout: Layout, slot: number, level: number): number {
  const { m, groupBits, upperAt, segmentBytes } = layout;
  if (level === 0) return addressOf(layout, "links", slot, 8 * m);
  const shift = level * groupBits;
  const at = upperAt[level] as number;
  if (shift > segmentBits) return at + Math.floor(slot / 2 ** shift) * 4 * m;
  const segment = Math.floor(slot / segmentSlots) * segmentBytes;
  return at + segment + Math.floor((slot % segmentSlots) / 2 ** shift) * 4 * m;
}

type State = "live" | "dead" | "free";

class Graph {
  readonly words: Uint32Array;
  readonly layout: Layout;
  readonly exports: EngineExports;
  readonly used: number;
  readonly version: number;
  constructor(
    exports: EngineExports,
    memory: WebAssembly.Memory,
    layout: Layout,
    used: number,
    version: number,
  ) {
    this.words = new Uint32Array(memory.buffer);
    this.layout = layout;
    this.exports = exports;
    this.used = used;
    this.version = version;
  }
  state(slot: number): State {
    const born = this.words[addressOf(this.layout, "born", slot, 4) / 4] as number;
    const died = this.words[addressOf(this.layout, "died", slot, 4) / 4] as number;
    if (born === noWord) return "free";
    return born <= this.version && this.version < died ? "live" : "dead";
  }
  *links(slot: number, level: number): Generator<number> {
    const at = linksAddress(this.layout, slot, level) / 4;
    const capacity = level === 0 ? 2 * this.layout.m : this.layout.m;
    for (let i = 0; i < capacity; i++) {
      const link = this.words[at + i] as number;
      if (link === noWord) return;
      yield link;
    }
  }
  /** -1 when the graph is empty. */
  entry(): { slot: number; level: number } {
    const at = (controlAt + 256) / 4;
    return { slot: (this.words[at] as number) - 1, level: this.words[at + 1] as number };
  }
}

function checkLinks(graph: Graph, slot: number, level: number, report: GraphReport, problem: Problem): void {
  const seen = new Set<number>();
  for (const link of graph.links(slot, level)) {
    report.links++;
    const state = link < graph.used ? graph.state(link) : "free";
    const bad = state === "free" || link === slot || seen.has(link) || graph.exports.levelOf(link) < level;
    seen.add(link);
    if (bad) {
      report.badLinks++;
      problem(`slot ${slot} has a bad link to ${link} on level ${level}`);
    } else if (state === "dead") report.deadLinks++;
  }
}

type Problem = (text: string) => void;

function countUnreachable(graph: Graph, states: State[], start: number): number {
  const seen = new Uint8Array(graph.used);
  const open = [start];
  seen[start] = 1;
  for (let slot = open.pop(); slot !== undefined; slot = open.pop())
    for (const link of graph.links(slot, 0)) {
      if (link >= graph.used || seen[link] === 1) continue;
      seen[link] = 1;
      open.push(link);
    }
  return states.reduce((sum, state, slot) => sum + (state === "live" && seen[slot] === 0 ? 1 : 0), 0);
}

/** Walks every slot, link and level. Reads only; runs in a thread, with no change running. */
export function checkGraph(
  exports: EngineExports,
  memory: WebAssembly.Memory,
  layout: Layout,
  used: number,
  version: number,
): GraphReport {
  const graph = new Graph(exports, memory, layout, used, version);
  const report: GraphReport = {
    slots: used,
    live: 0,
    dead: 0,
    free: 0,
    levels: new Array<number>(layout.levels + 1).fill(0),
    links: 0,
    deadLinks: 0,
    badLinks: 0,
    unreachable: 0,
    problems: [],
  };
  const problem: Problem = (text) => {
    if (report.problems.length < maxReportedProblems) report.problems.push(text);
  };
  const states: State[] = [];
  const keys = new Set<number>();
  for (let slot = 0; slot < used; slot++) {
    const state = graph.state(slot);
    states.push(state);
    report[state]++;
    if (graph.words[addressOf(layout, "lock", slot, 4) / 4] !== 0) problem(`slot ${slot} is locked`);
    if (state !== "live") continue;
    const key = graph.words[addressOf(layout, "key", slot, 4) / 4] as number;
    if (keys.has(key)) problem(`key ${key} is there twice`);
    keys.add(key);
    const level = exports.levelOf(slot);
    report.levels[level] = (report.levels[level] ?? 0) + 1;
    for (let l = 0; l <= level; l++) checkLinks(graph, slot, l, report, problem);
  }
  const entry = graph.entry();
  if (entry.slot >= used || (entry.slot < 0 && report.live > 0)) problem("there is no valid entry point");
  else if (entry.slot >= 0) {
    if (entry.level !== exports.levelOf(entry.slot)) problem("the entry point's level is not its own");
    report.unreachable = countUnreachable(graph, states, entry.slot);
  }
  return report;
}
