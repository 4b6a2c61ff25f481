import { checkLimits } from "./limits.ts";

/** Counts things and keeps the first few as examples. */
export class Examples {
  count = 0;
  readonly examples: string[] = [];

  add(text: () => string): void {
    this.count++;
    if (this.examples.length < checkLimits.maxNamed) this.examples.push(text());
  }
}
