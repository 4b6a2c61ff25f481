// Saving and loading as the main thread sees them: it opens, reads and writes only headers, and asynchronously; the
// sections are the business of the pool's threads.
export { type LoadOptions, loadIndex } from "./load.ts";
export { saveIndex } from "./save.ts";
