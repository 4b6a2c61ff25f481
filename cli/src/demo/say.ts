let write: (text: string) => void = console.log;

/** A line of what the demo does. */
export function say(text: string): void {
  write(text);
}

/** For who wants nothing but the report on standard output. */
export function sayToStandardError(): void {
  write = console.error;
}
