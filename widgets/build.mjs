/**
 * Bundles the widgets into one self-contained ES module for anywidget: no CDN, nothing loaded at run time.
 *
 * `node build.mjs` writes ../mint_lab/ui/static/widgets.js; `--watch` rebuilds on change.
 */
import { readFileSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outdir = join(here, "..", "mint_lab", "ui", "static");

/** @type {esbuild.BuildOptions} */
const options = {
  plugins: [onlyOurStyles()],
  entryPoints: [join(here, "src/widgets.ts")],
  outdir,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  loader: { ".css": "text" },
  define: { global: "globalThis", "process.env.NODE_ENV": '"production"' },
  legalComments: "linked",
  metafile: true,
  logLevel: "warning",
};

if (process.argv.includes("--watch")) {
  const context = await esbuild.context({ ...options, minify: false, logLevel: "info" });
  await context.watch();
} else {
  rmSync(outdir, { recursive: true, force: true });
  const result = await esbuild.build(options);
  for (const file of Object.keys(result.metafile.outputs).filter((name) => name.endsWith(".js"))) {
    const packed = gzipSync(readFileSync(file)).length;
    console.log(`${basename(file)}  ${kilobytes(statSync(file).size)}  (gzip ${kilobytes(packed)})`);
  }
}

/** @param {number} bytes */
function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(0)} kB`;
}

/** plotly.js imports the style sheet of its maps, which are not in this bundle. */
function onlyOurStyles() {
  return {
    name: "only-our-styles",
    /** @param {esbuild.PluginBuild} build */
    setup(build) {
      build.onLoad({ filter: /node_modules.*\.css$/ }, () => ({ contents: "", loader: "text" }));
    },
  };
}
