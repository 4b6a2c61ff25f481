const msPerSecond = 1_000;

interface Series {
  /** By bucket, not cumulative; the last one is above all bounds. */
  counts: Float64Array;
  sumMs: number;
}

interface Sample {
  metricName: string;
  labels: Record<string, string | number>;
  value: number;
}

/** A histogram in seconds with one label; fed with milliseconds. Registries read it as one of their own. */
export class BucketHistogram<Value extends string> {
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly name: string;
  readonly help: string;
  readonly #label: string;
  readonly #boundsMs: Float64Array;
  readonly #series: Record<Value, Series>;

  constructor(options: {
    name: string;
    help: string;
    label: string;
    values: readonly Value[];
    /** Seconds, rising. */
    bounds: readonly number[];
  }) {
    this.name = options.name;
    this.help = options.help;
    this.#label = options.label;
    this.#boundsMs = Float64Array.from(options.bounds, (bound) => bound * msPerSecond);
    this.#series = Object.fromEntries(
      options.values.map((value) => [
        value,
        { counts: new Float64Array(options.bounds.length + 1), sumMs: 0 },
      ]),
    ) as Record<Value, Series>;
  }

  /** `count` observations of the same time. */
  observeMs(value: Value, ms: number, count = 1): void {
    const series = this.#series[value];
    const bounds = this.#boundsMs;
    let bucket = 0;
    while (bucket < bounds.length && ms > (bounds[bucket] as number)) bucket++;
    series.counts[bucket] = (series.counts[bucket] as number) + count;
    series.sumMs += ms * count;
  }

  reset(): void {
    for (const series of Object.values<Series>(this.#series)) {
      series.counts.fill(0);
      series.sumMs = 0;
    }
  }

  async get(): Promise<{ name: string; help: string; type: string; aggregator: string; values: Sample[] }> {
    const values = Object.entries<Series>(this.#series).flatMap(([value, series]) =>
      this.#samplesOf(value, series),
    );
    return { name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values };
  }

  #samplesOf(value: string, { counts, sumMs }: Series): Sample[] {
    const labels = { [this.#label]: value };
    let total = 0;
    const buckets = [...counts].map((count, at) => {
      total += count;
      const bound = this.#boundsMs[at];
      const le = bound === undefined ? "+Inf" : bound / msPerSecond;
      return { metricName: `${this.name}_bucket`, labels: { le, ...labels }, value: total };
    });
    return [
      ...buckets,
      { metricName: `${this.name}_sum`, labels, value: sumMs / msPerSecond },
      { metricName: `${this.name}_count`, labels, value: total },
    ];
  }
}
