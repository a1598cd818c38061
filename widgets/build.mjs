/**
 * Bundles the widgets into one self-contained ES module for anywidget: no CDN, nothing fetched at run time. The module is
 * `src/loader.ts`, which contains all others as one text.
 *
 * `node build.mjs` writes ../mint_lab/ui/static/widgets.js; `--watch` rebuilds on change.
 */
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outdir = join(here, "..", "mint_lab", "ui", "static");

const watches = process.argv.includes("--watch");

/** @type {esbuild.BuildOptions} */
const common = {
  outdir,
  bundle: true,
  minify: !watches,
  format: "esm",
  target: "es2022",
  platform: "browser",
  loader: { ".css": "text" },
  define: { global: "globalThis", "process.env.NODE_ENV": '"production"' },
  metafile: true,
  logLevel: "warning",
};

/** @type {esbuild.BuildOptions} */
const options = {
  ...common,
  plugins: [bundledAsText()],
  entryPoints: { widgets: join(here, "src/loader.ts") },
};

if (watches) {
  const context = await esbuild.context({ ...options, logLevel: "info" });
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

/** `import text from "bundled:widgets.ts"`: the bundle of that module, as text. Its licenses become a file of their own. */
function bundledAsText() {
  return {
    name: "bundled-as-text",
    /** @param {esbuild.PluginBuild} build */
    setup(build) {
      build.onResolve({ filter: /^bundled:/ }, ({ path }) => ({ path: path.slice(8), namespace: "bundled" }));
      build.onLoad({ filter: /.*/, namespace: "bundled" }, async ({ path }) => {
        const { outputFiles, metafile } = await esbuild.build({
          ...common,
          plugins: [onlyOurStyles()],
          entryPoints: [join(here, "src", path)],
          legalComments: "linked",
          write: false,
        });
        mkdirSync(outdir, { recursive: true });
        for (const file of outputFiles.filter((output) => output.path.endsWith(".LEGAL.txt"))) {
          writeFileSync(file.path, file.contents);
        }
        const script = outputFiles.find((output) => output.path.endsWith(".js"));
        return {
          contents: script?.text ?? "",
          loader: "text",
          watchFiles: Object.keys(metafile.inputs).map((name) => join(process.cwd(), name)),
        };
      });
    },
  };
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
