/** A second signal within this time is the same Ctrl-C: npm and the terminal both deliver it. */
const sameSignalMs = 1_000;

/** Runs `main` with a signal that SIGINT, SIGTERM and SIGHUP abort; a later second one ends the process at once. */
export async function untilSignal<T>(main: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let firstMs: number | undefined;
  const onSignal = () => {
    const nowMs = performance.now();
    if (firstMs === undefined) {
      firstMs = nowMs;
      controller.abort(new DOMException("interrupted", "AbortError"));
    } else if (nowMs - firstMs > sameSignalMs) {
      process.exit(130);
    }
  };
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of names) process.on(name, onSignal);
  try {
    return await main(controller.signal);
  } finally {
    for (const name of names) process.off(name, onSignal);
  }
}
