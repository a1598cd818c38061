/**
 * Runs biome's binary for this machine. Its umbrella package also names platforms whose binaries not every registry
 * carries, and `npm ci` refuses a lock file without them; so package.json names the binaries themselves.
 */
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";

const { platform, arch } = process;
const musl = platform === "linux" && !process.report.getReport().header.glibcVersionRuntime ? "-musl" : "";
const name = `@biomejs/cli-${platform}-${arch}${musl}/biome${platform === "win32" ? ".exe" : ""}`;
const biome = createRequire(import.meta.url).resolve(name);
process.exit(spawnSync(biome, process.argv.slice(2), { stdio: "inherit" }).status ?? 1);
