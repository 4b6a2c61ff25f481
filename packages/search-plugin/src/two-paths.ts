import { LimError } from "@lim/contracts";

export interface SecondPath<T> {
  /** The second path begins when the first has not answered for so long, or fails. */
  patienceMs: number;
  /** Whether the second path may answer what the first failed with. */
  mayRescue(error: LimError): boolean;
  /** Searches the references of these places. */
  start(places: readonly number[]): Promise<T>[];
}

/**
 * Answers of the first path, and where it is silent or away those of the second; the first that comes counts. Throws
 * what `worseOf` chooses where a reference fails on both.
 */
export async function answerByTwo<T>(
  first: readonly Promise<T>[],
  second: SecondPath<T>,
  worseOf: (first: LimError, second: LimError) => LimError,
): Promise<T[]> {
  const outcomes = new Map<number, { answer: T } | { error: LimError }>();
  await untilSettledOrOver(first, outcomes, second);
  const places = first.map((_, place) => place);
  const open = places.filter((place) => !hasAnswer(outcomes.get(place)));
  for (const place of open) {
    const outcome = outcomes.get(place);
    if (outcome && "error" in outcome && !second.mayRescue(outcome.error)) throw outcome.error;
  }
  if (open.length === 0) return Promise.all(first);
  const rescues = second.start(open);
  const rescued = open.map((place, i) =>
    eitherOf(first[place] as Promise<T>, rescues[i] as Promise<T>, worseOf),
  );
  const byPlace = new Map(open.map((place, i) => [place, rescued[i] as Promise<T>]));
  return Promise.all(first.map((answer, place) => byPlace.get(place) ?? answer));
}

function hasAnswer<T>(outcome: { answer: T } | { error: LimError } | undefined): boolean {
  return outcome !== undefined && "answer" in outcome;
}

/** Until all have settled, one has failed for good, or the patience is over. */
function untilSettledOrOver<T>(
  promises: readonly Promise<T>[],
  outcomes: Map<number, { answer: T } | { error: LimError }>,
  { patienceMs, mayRescue }: SecondPath<T>,
): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, patienceMs);
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    for (const [place, promise] of promises.entries())
      promise.then(
        (answer) => {
          outcomes.set(place, { answer });
          if (outcomes.size === promises.length) done();
        },
        (thrown: unknown) => {
          const error = LimError.from(thrown);
          outcomes.set(place, { error });
          if (outcomes.size === promises.length || !mayRescue(error)) done();
        },
      );
  });
}

async function eitherOf<T>(
  first: Promise<T>,
  second: Promise<T>,
  worseOf: (first: LimError, second: LimError) => LimError,
): Promise<T> {
  try {
    return await Promise.any([first, second]);
  } catch (thrown) {
    if (!(thrown instanceof AggregateError)) throw thrown;
    const [one, other] = thrown.errors;
    throw worseOf(LimError.from(one), LimError.from(other));
  }
}

/** Of an index path's and an exact path's failure: the index path's name, unless the list is gone; both details. */
export function tellBoth(index: LimError, exact: LimError): LimError {
  if (exact.errorName === "list_not_found") return exact;
  return new LimError(index.errorName, `${index.detail}; exact search: ${exact.detail}`, { cause: exact });
}
