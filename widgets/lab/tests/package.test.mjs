import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
/** @param {string} path */
const read = (path) => readFileSync(path, "utf8");
const { jupyterlab, devDependencies } = JSON.parse(read(join(here, "package.json")));

/** The JupyterLab packages that the code imports at run time. */
const used = new Set();
for (const name of readdirSync(join(here, "src")).filter((file) => file.endsWith(".ts"))) {
  for (const [, type, from] of read(join(here, "src", name)).matchAll(/^import (type )?.*from "(@[^"]+)";$/gm)) {
    if (!type && from) used.add(from);
  }
}

it("bundles no JupyterLab package, and requires no newer version than it is checked with", () => {
  expect(used.size).toBeGreaterThan(5);
  expect(Object.keys(jupyterlab.sharedPackages).sort()).toEqual([...used].sort());
  for (const [name, { requiredVersion, bundled, singleton }] of Object.entries(jupyterlab.sharedPackages)) {
    expect({ bundled, singleton }).toEqual({ bundled: false, singleton: true });
    const [, major, minor] = /^(\d+)\.(\d+)\./.exec(devDependencies[name]) ?? [];
    expect(requiredVersion).toBe(`^${major}.${minor}.0`);
  }
});
