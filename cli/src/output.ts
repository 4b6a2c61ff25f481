import { MultiBar, Presets } from "cli-progress";

/** One line of progress; `finish` leaves its last state on the screen. */
export interface ProgressLine {
  update(done: number, note?: string): void;
  setTotal(total: number): void;
  finish(note?: string): void;
}

/** Progress of one or several things at once: bars on a terminal, a plain line now and then elsewhere. */
export interface ProgressBoard {
  add(name: string, total: number, unit: string): ProgressLine;
  stop(): void;
}

const plainIntervalMs = 5_000;
const nameWidth = 22;

export function createProgressBoard(stream: NodeJS.WriteStream = process.stderr): ProgressBoard {
  return stream.isTTY ? terminalBoard(stream) : plainBoard(stream);
}

/** Time left at the mean rate so far, which settles sooner than that of the last few updates. */
function timeLeft(done: number, total: number, startedMs: number): string {
  if (done <= 0) return "…";
  const seconds = Math.ceil(((performance.now() - startedMs) / 1000) * ((total - done) / done));
  return seconds >= 60
    ? `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, "0")}s`
    : `${seconds}s`;
}

function terminalBoard(stream: NodeJS.WriteStream): ProgressBoard {
  const bars = new MultiBar(
    {
      stream,
      hideCursor: true,
      clearOnComplete: false,
      format: "  {name} {bar} {percentage}% · {value}/{total} {unit} {note}",
    },
    Presets.shades_classic,
  );
  return {
    add(name, total, unit) {
      const startedMs = performance.now();
      const bar = bars.create(Math.max(total, 1), 0, { name: name.padEnd(nameWidth), unit, note: "" });
      return {
        update: (done, note = "") =>
          bar.update(done, { note: `· ${timeLeft(done, bar.getTotal(), startedMs)} left ${note}` }),
        setTotal: (next) => bar.setTotal(Math.max(next, 1)),
        finish: (note = "") => {
          bar.update(bar.getTotal(), { note });
          bar.stop();
        },
      };
    },
    stop: () => bars.stop(),
  };
}

function plainBoard(stream: NodeJS.WriteStream): ProgressBoard {
  return {
    add(name, initialTotal, unit) {
      let total = initialTotal;
      let lastMs = performance.now();
      const write = (done: number, note: string) => {
        const percent = total > 0 ? Math.floor((100 * done) / total) : 100;
        stream.write(
          `${`  ${name.padEnd(nameWidth)} ${percent}% · ${done}/${total} ${unit} ${note}`.trimEnd()}\n`,
        );
      };
      let lastDone = 0;
      return {
        update(done, note = "") {
          lastDone = done;
          if (performance.now() - lastMs < plainIntervalMs) return;
          lastMs = performance.now();
          write(done, note);
        },
        setTotal(next) {
          total = next;
        },
        finish: (note = "") => write(Math.max(lastDone, total), note),
      };
    },
    stop: () => undefined,
  };
}

/** Columns padded to their widest cell. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return [line(header), line(widths.map((width) => "─".repeat(width))), ...rows.map(line)].join("\n");
}

export function formatRate(perSecond: number): string {
  return perSecond >= 100
    ? Math.round(perSecond).toLocaleString("en-US")
    : perSecond.toFixed(perSecond >= 10 ? 1 : 2);
}

/** Names and values, one a line; those without a value are left out. */
export function formatFields(fields: readonly (readonly [string, string | null])[]): string {
  const there = fields.filter(([, value]) => value !== null && value !== "");
  const width = Math.max(0, ...there.map(([name]) => name.length));
  return there.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}
