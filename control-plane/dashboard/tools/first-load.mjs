// Says how much a browser loads before the first page is there, compressed, and fails over the limit. It counts the page
// itself, and the scripts and styles that its entry imports; pages, charts and consoles are loaded when they are shown.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const limit = 350 * 1024;
const dist = join(import.meta.dirname, "../dist");
const manifest = JSON.parse(readFileSync(join(dist, ".vite/manifest.json"), "utf8"));

const files = new Set(["index.html", "theme.js"]);
const visit = (name) => {
  const part = manifest[name];
  if (files.has(part.file)) return;
  files.add(part.file);
  for (const style of part.css ?? []) files.add(style);
  for (const other of part.imports ?? []) visit(other);
};
visit("index.html");

let gzip = 0;
let brotli = 0;
for (const file of files) {
  const bytes = readFileSync(join(dist, file));
  gzip += gzipSync(bytes, { level: 9 }).length;
  brotli += brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;
}
const kib = (bytes) => `${(bytes / 1024).toFixed(0)} KiB`;
process.stdout.write(
  `first load: ${files.size} files, ${kib(gzip)} with gzip, ${kib(brotli)} with brotli; limit ${kib(limit)}\n`,
);
if (gzip > limit) {
  process.stderr.write("The first load is over its limit: load what is not always needed with import().\n");
  process.exit(1);
}
