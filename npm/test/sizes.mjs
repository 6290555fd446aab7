// What each entry costs a page: minified and gzipped, with nothing of the packages that it is for. As a table.
import { build } from "esbuild";
import { gzipSync } from "node:zlib";

const MOST = { runwire: 6 * 1024 }; // of the core; an entry has it inside
const external = ["react", "ai", "@ag-ui/client", "rxjs"];
console.log("| entry | minified | gzipped |\n|---|---|---|");
for (const entry of ["runwire", "react", "ai-sdk", "ag-ui"]) {
  const entryPoints = [new URL(`../dist/${entry}.js`, import.meta.url).pathname];
  const { outputFiles } = await build({ entryPoints, external, bundle: true, minify: true, format: "esm", write: false });
  const [minified, gzipped] = [outputFiles[0].contents.length, gzipSync(outputFiles[0].contents, { level: 9 }).length];
  console.log(`| ${entry === "runwire" ? entry : `runwire/${entry}`} | ${minified} | ${gzipped} |`);
  if (gzipped > (MOST[entry] ?? Infinity)) throw new Error(`${entry} is larger than ${MOST[entry]} bytes`);
}
