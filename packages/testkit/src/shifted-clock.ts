// Preloaded into a process (`--import`), shifts its wall clock at each SIGUSR2 by the next of LIM_TEST_CLOCK_SHIFTS_MS
// (milliseconds, separated by commas; the shifts add up). performance.now() and timers go on as they were.

const shiftsMs = (process.env.LIM_TEST_CLOCK_SHIFTS_MS ?? "").split(",").filter(Boolean).map(Number);
let shiftMs = 0;
let taken = 0;

const RealDate = Date;

class ShiftedDate extends RealDate {
  constructor(...given: unknown[]) {
    if (given.length === 0) super(RealDate.now() + shiftMs);
    else super(...(given as [number]));
  }

  static override now(): number {
    return RealDate.now() + shiftMs;
  }
}

globalThis.Date = ShiftedDate as DateConstructor;

process.on("SIGUSR2", () => {
  shiftMs += shiftsMs[taken++] ?? 0;
  console.error(`wall clock shifted: it is ${new Date().toISOString()}`);
});
