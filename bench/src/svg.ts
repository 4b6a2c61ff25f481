// Recall against searches per second as a drawing: one panel a data set, both axes logarithmic.
export interface SvgSeries {
  name: string;
  /** 0, 1, 2: the colour and mark. */
  style: number;
  points: { recall: number; perS: number; label: string }[];
}
export interface SvgPanel {
  title: string;
  /** As "recall@10". */
  xTitle: string;
  series: SvgSeries[];
}

const width = 760;
const panelHeight = 330;
const margin = { left: 78, right: 24, top: 48, bottom: 56 };
const headHeight = 64;
/** Recall is drawn by what it lacks: .9 → 1, .99 → 2, .999 → 3; a recall of one at the edge. */
const recallTicks = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
const leastLacking = 5e-5;

const light = { back: "#ffffff", ink: "#1f2328", faint: "#d8dee4", quiet: "#59636e" };
const dark = { back: "#0d1117", ink: "#e6edf3", faint: "#30363d", quiet: "#9198a1" };
const colours = { light: ["#b35900", "#0550ae", "#1a7f37"], dark: ["#f0883e", "#58a6ff", "#56d364"] };

export function escapeXml(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? "");
}

const nines = (recall: number) => -Math.log10(Math.max(leastLacking, 1 - recall));

/** 1, 2, 5 × powers of ten from `low` to `high`. */
export function decadeTicks(low: number, high: number): number[] {
  const ticks: number[] = [];
  for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high; decade *= 10)
    for (const step of [1, 2, 5])
      if (step * decade >= low && step * decade <= high) ticks.push(step * decade);
  return ticks;
}

function styleSheet(): string {
  const rules = (theme: typeof light, inks: readonly string[]) =>
    [
      `.back{fill:${theme.back}}`,
      `text{fill:${theme.ink}}`,
      `.quiet{fill:${theme.quiet}}`,
      `.grid{stroke:${theme.faint}}`,
      ...inks.map((ink, i) => `.line${i}{stroke:${ink}}.mark${i}{fill:${ink}}`),
    ].join("");
  return [
    "text{font-family:system-ui,sans-serif;font-size:12px}",
    ".title{font-size:14px;font-weight:600}.grid{stroke-width:1}.line{fill:none;stroke-width:2}",
    rules(light, colours.light),
    `@media (prefers-color-scheme:dark){${rules(dark, colours.dark)}}`,
  ].join("");
}

/** Marks differ in form as well as in colour. */
function mark(style: number, x: number, y: number, title: string): string {
  const at = `${x.toFixed(1)},${y.toFixed(1)}`;
  const name = `<title>${escapeXml(title)}</title>`;
  if (style === 0)
    return `<rect class="mark0" x="${(x - 3.5).toFixed(1)}" y="${(y - 3.5).toFixed(1)}" width="7" height="7">${name}</rect>`;
  if (style === 1)
    return `<circle class="mark1" cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="4">${name}</circle>`;
  return `<path class="mark${style}" d="M${at}m-5,4h10l-5,-9z">${name}</path>`;
}

function drawSeries(series: SvgSeries, x: (recall: number) => number, y: (perS: number) => number): string {
  const { style, name } = series;
  const points = series.points.toSorted((a, b) => a.recall - b.recall);
  const line = points.map(({ recall, perS }) => `${x(recall).toFixed(1)},${y(perS).toFixed(1)}`).join(" ");
  const marks = points.map((point) => {
    const said = `${name}, ${point.label}: recall ${point.recall.toFixed(4)}, ${Math.round(point.perS)} searches/s`;
    return mark(style, x(point.recall), y(point.perS), said);
  });
  return `<polyline class="line line${style}" points="${line}"/>${marks.join("")}`;
}

function drawPanel(panel: SvgPanel, top: number): string {
  const all = panel.series.flatMap(({ points }) => points);
  if (all.length === 0) return "";
  const speeds = all.map(({ perS }) => Math.log10(perS));
  const [low, high] = [Math.min(...speeds) - 0.08, Math.max(...speeds) + 0.08];
  const reached = all.map(({ recall }) => nines(recall));
  const [left, right] = [Math.min(...reached) - 0.1, Math.max(...reached) + 0.1];
  const plot = {
    width: width - margin.left - margin.right,
    height: panelHeight - margin.top - margin.bottom,
  };
  const base = top + margin.top + plot.height;
  const x = (recall: number) => margin.left + ((nines(recall) - left) / (right - left)) * plot.width;
  const y = (perS: number) => base - ((Math.log10(perS) - low) / (high - low)) * plot.height;
  const parts = [`<text class="title" x="${margin.left}" y="${top + 30}">${escapeXml(panel.title)}</text>`];
  for (const tick of decadeTicks(10 ** low, 10 ** high)) {
    const at = y(tick).toFixed(1);
    parts.push(
      `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${at}" y2="${at}"/>`,
      `<text class="quiet" x="${margin.left - 8}" y="${at}" dy="4" text-anchor="end">${tick.toLocaleString("en-US")}</text>`,
    );
  }
  for (const tick of recallTicks.filter((recall) => nines(recall) >= left && nines(recall) <= right)) {
    const at = x(tick).toFixed(1);
    parts.push(
      `<line class="grid" x1="${at}" x2="${at}" y1="${top + margin.top}" y2="${base}"/>`,
      `<text class="quiet" x="${at}" y="${base + 18}" text-anchor="middle">${String(tick).replace(/^0/, "")}</text>`,
    );
  }
  parts.push(
    `<text class="quiet" x="${margin.left + plot.width / 2}" y="${base + 38}" text-anchor="middle">${escapeXml(panel.xTitle)}</text>`,
    ...panel.series.filter(({ points }) => points.length > 0).map((series) => drawSeries(series, x, y)),
  );
  return parts.join("\n");
}

function drawLegend(series: readonly SvgSeries[]): string {
  let x = margin.left;
  return series
    .map(({ name, style }) => {
      const drawn = `<line class="line line${style}" x1="${x}" x2="${x + 26}" y1="44" y2="44"/>${mark(style, x + 13, 44, name)}<text x="${x + 34}" y="48">${escapeXml(name)}</text>`;
      x += 60 + name.length * 7;
      return drawn;
    })
    .join("\n");
}

/** A whole SVG file, readable on light and on dark, without anything from elsewhere. */
export function drawCurves(title: string, panels: readonly SvgPanel[]): string {
  const height = headHeight + panels.length * panelHeight;
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    `<style>${styleSheet()}</style>`,
    `<rect class="back" width="${width}" height="${height}"/>`,
    `<text class="title" x="${margin.left}" y="26">${escapeXml(title)}</text>`,
    drawLegend(panels[0]?.series ?? []),
    ...panels.map((panel, i) => drawPanel(panel, headHeight + i * panelHeight)),
    "</svg>",
  ].join("\n")}\n`;
}
