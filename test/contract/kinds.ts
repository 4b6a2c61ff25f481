import fc from "fast-check";
import type { ApiDocument, Operation } from "./document.ts";
import { noOperation, oddPlans, strayPlans } from "./http-faults.ts";
import { faultyPlans, type PlanKind } from "./mutations.ts";
import type { Plan } from "./plan.ts";
import { dryRuns, validPlans } from "./requests.ts";
import type { Validators } from "./schemas.ts";

/** How requests are drawn: `still` ones change nothing when they are answered as expected. */
export type Round = "still" | "moving";

interface Drawer {
  operation: string;
  /** Of ten requests, so many are valid, and so many of the others odd; where there are such. */
  shares: { valid: number; odd: number };
  valid: PlanKind[];
  faulty: PlanKind[];
  odd: PlanKind[];
}

export interface Deck {
  /** The `index`-th request of a seed, in a round: always the same one. */
  draw(round: Round, seed: number, index: number): Drawn;
  /** Whether the operation can be asked wrongly at all. */
  isRefusable(operation: string): boolean;
}

export interface Drawn {
  plan: Plan;
  plans: fc.Arbitrary<Plan>;
  /** With it fast-check makes the same request again, and smaller ones. */
  seed: number;
}

/** A number of 32 bits that two numbers stand for, well mixed. */
export function mixed(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b ^ 0x7f4a7c15, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return h ^ (h >>> 15);
}

function drawersOf(document: ApiDocument, validators: Validators): Record<Round, Drawer[]> {
  const still: Drawer[] = [];
  const moving: Drawer[] = [];
  for (const operation of document.operations) {
    const valid = [{ name: "valid", plans: validPlans(document, operation) }];
    const faulty = faultyPlans(document, operation, validators);
    const odd = oddPlans(document, operation);
    const common = { operation: operation.id, faulty, shares: { valid: 4, odd: 1 } };
    if (isRead(operation)) {
      still.push({ ...common, valid, odd });
      moving.push({ ...common, valid, odd });
    } else {
      const dry = dryRuns(document, operation);
      still.push({ ...common, valid: dry ? [{ name: "valid", plans: dry }] : [], odd: [] });
      // What is wrong about it is asked where nothing may change.
      moving.push({ ...common, valid, odd, shares: { valid: 8, odd: 1 } });
    }
  }
  const stray = {
    operation: noOperation,
    valid: [],
    faulty: strayPlans(document),
    odd: [],
    shares: { valid: 0, odd: 0 },
  };
  return { still: [...still, stray], moving: [...moving, stray] };
}

const isRead = (operation: Operation) => operation.method === "GET";

export function createDeck(document: ApiDocument, validators: Validators): Deck {
  const drawers = drawersOf(document, validators);
  const pick = <T>(items: readonly T[], seed: number): T => {
    const item = items[(seed >>> 0) % items.length];
    if (item === undefined) throw new Error("there is nothing to draw from");
    return item;
  };
  return {
    draw(round, seed, index) {
      const drawer = pick(drawers[round], index);
      const place = mixed(seed, index);
      const { valid, odd } = drawer.shares;
      const share = (place >>> 8) % 10;
      const wanted = share < valid ? drawer.valid : share < 10 - odd ? drawer.faulty : drawer.odd;
      const kinds = [wanted, drawer.faulty, drawer.valid, drawer.odd].find((some) => some.length > 0) ?? [];
      const { plans } = pick(kinds, mixed(place, 1));
      const [plan] = fc.sample(plans, { seed: place, numRuns: 1 });
      if (!plan) throw new Error(`nothing was drawn for ${drawer.operation}`);
      return { plan, plans, seed: place };
    },
    isRefusable: (id) => drawers.still.some((drawer) => drawer.operation === id && drawer.faulty.length > 0),
  };
}
