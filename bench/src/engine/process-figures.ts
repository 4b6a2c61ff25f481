const settleMs = 100;

/** Resident bytes after garbage was collected. */
export async function residentBytes(): Promise<number> {
  for (let i = 0; i < 2; i++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, settleMs));
  }
  return process.memoryUsage.rss();
}

/** Adds up wall and processor time of the stretches between start and stop. */
export class StopWatch {
  seconds = 0;
  cpuSeconds = 0;
  #startedMs = 0;
  #cpu = process.cpuUsage();

  start(): void {
    this.#cpu = process.cpuUsage();
    this.#startedMs = performance.now();
  }

  stop(): void {
    this.seconds += (performance.now() - this.#startedMs) / 1000;
    const { user, system } = process.cpuUsage(this.#cpu);
    this.cpuSeconds += (user + system) / 1e6;
  }
}
