#!/usr/bin/env node
// Stands in the checkout, so that npm can link it before anything is built.
import { existsSync } from "node:fs";

const main = new URL("../dist/main.js", import.meta.url);
if (!existsSync(main)) {
  console.error("lim is not built yet: run `npm run setup` in the checkout first");
  process.exit(1);
}
await import(main.href);
