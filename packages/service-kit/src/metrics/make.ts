import { Counter, Gauge, Histogram, type Metric, type Registry } from "prom-client";
import { BucketHistogram } from "./bucket-histogram.ts";
import { metricsCatalogue } from "./catalogue.ts";
import type { MetricSpec } from "./spec.ts";

type Catalogue = typeof metricsCatalogue;
type NameOf<Type extends MetricSpec["type"]> = {
  [Name in keyof Catalogue]: Catalogue[Name]["type"] extends Type ? Name : never;
}[keyof Catalogue];
type LabelsOf<Name extends keyof Catalogue> = Catalogue[Name] extends { labels: infer Labels }
  ? keyof Labels & string
  : never;

export type CounterOf<Name extends NameOf<"counter">> = Counter<LabelsOf<Name>>;
export type GaugeOf<Name extends NameOf<"gauge">> = Gauge<LabelsOf<Name>>;
export type HistogramOf<Name extends NameOf<"histogram">> = Histogram<LabelsOf<Name>>;

/** Makes metrics of the catalogue in one registry. `collect` is called at each scrape, before the metric is read. */
export interface MetricMaker {
  counter<Name extends NameOf<"counter">>(
    name: Name,
    collect?: (counter: CounterOf<Name>) => void,
  ): CounterOf<Name>;
  gauge<Name extends NameOf<"gauge">>(
    name: Name,
    collect?: (gauge: GaugeOf<Name>) => void | Promise<void>,
  ): GaugeOf<Name>;
  histogram<Name extends NameOf<"histogram">>(name: Name): HistogramOf<Name>;
  /**
   * A histogram of seconds with one label whose values are known, for hot paths: an observation is an addition to a
   * bucket, without a look at labels.
   */
  buckets<Value extends string>(
    name: NameOf<"histogram">,
    label: string,
    values: readonly Value[],
  ): BucketHistogram<Value>;
}

export function metricsIn(registry: Registry): MetricMaker {
  const options = (name: keyof Catalogue) => {
    const { help, labels, buckets }: MetricSpec = metricsCatalogue[name];
    return {
      name,
      help,
      labelNames: Object.keys(labels ?? {}),
      registers: [registry],
      ...(buckets ? { buckets: [...buckets] } : {}),
    };
  };
  return {
    counter(name, collect) {
      const made: Counter<string> = new Counter<string>({ ...options(name), collect: () => collect?.(made) });
      return made;
    },
    gauge(name, collect) {
      const made: Gauge<string> = new Gauge<string>({ ...options(name), collect: () => collect?.(made) });
      return made;
    },
    histogram: (name) => new Histogram<string>(options(name)),
    buckets(name, label, values) {
      const { help, buckets = [] }: MetricSpec = metricsCatalogue[name];
      const made = new BucketHistogram({ name, help, label, values, bounds: buckets });
      registry.registerMetric(made as unknown as Metric<string>);
      return made;
    },
  };
}
