/**
 * Builds the prebuilt JupyterLab extension into ../../mint_lab/labextension, with the lessons: the page fetches them from
 * the extension's own address, so no server extension is needed.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const output = join(here, "..", "..", "mint_lab", "labextension");
const notebooks = join(here, "..", "..", "notebooks");

const builder = join(dirname(require.resolve("@jupyter/builder")), "build-labextension.js");
const core = require.resolve("@jupyterlab/core-meta/core.package.json");
const done = spawnSync(process.execPath, [builder, "--core-package-file", core, here], { encoding: "utf8" });
if (done.status !== 0) {
  process.stderr.write(`${done.stdout}${done.stderr}`);
  process.exit(done.status ?? 1);
}

const lessons = readdirSync(notebooks)
  .filter((name) => name.endsWith(".ipynb"))
  .sort();
const folder = join(output, "static", "lessons");
mkdirSync(folder, { recursive: true });
for (const name of lessons) copyFileSync(join(notebooks, name), join(folder, name));
writeFileSync(join(folder, "index.json"), `${JSON.stringify(lessons)}\n`);

const { name, jupyterlab } = JSON.parse(readFileSync(join(output, "package.json"), "utf8"));
console.log(`${name}: ${jupyterlab._build.load.split("/").at(-1)}, ${lessons.length} lessons`);
