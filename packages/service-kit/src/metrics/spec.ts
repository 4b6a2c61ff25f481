/** A metric of the catalogue: named here and nowhere else. */
export interface MetricSpec {
  type: "counter" | "gauge" | "histogram";
  help: string;
  /** What it counts or measures in. */
  unit: string;
  /** Label → its values, as one reads it. */
  labels?: Readonly<Record<string, string>>;
  /** Upper bounds, in the metric's unit; histograms only. */
  buckets?: readonly number[];
}

export type MetricSpecs = Readonly<Record<string, MetricSpec>>;
