/** Results in input order, at most `parallel` running at a time. The first rejection rejects and starts no more. */
export async function mapBounded<In, Out>(
  inputs: readonly In[],
  parallel: number,
  work: (input: In) => Promise<Out>,
): Promise<Out[]> {
  const results = new Array<Out>(inputs.length);
  const remaining = inputs.entries();
  const worker = async () => {
    for (const [i, input] of remaining) results[i] = await work(input);
  };
  await Promise.all(Array.from({ length: Math.min(parallel, inputs.length) }, worker));
  return results;
}

/** Resolves after `ms`, or at once when the signal fires. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}
