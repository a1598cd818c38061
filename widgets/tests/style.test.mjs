import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const SRC = new URL("../src/", import.meta.url);
const files = readdirSync(SRC, { recursive: true }).map(String);
const read = (extension) =>
  files.filter((name) => name.endsWith(extension)).map((name) => readFileSync(new URL(name, SRC), "utf8"));

describe("the style sheets", () => {
  const css = read(".css")
    .join("\n")
    .replace(/\/\*[\s\S]*?\*\//g, "");
  const code = read(".ts").join("\n");

  it("select only classes and data attributes that the code sets", () => {
    const classes = new Set(css.match(/(?<=\.)ml-[\w-]+/g));
    const words = new Set(code.match(/(?<=["` .])ml-[\w-]+/g));
    expect(classes.size).toBeGreaterThan(100);
    expect([...classes].filter((name) => !words.has(name))).toEqual([]);
    const attributes = new Set(css.match(/(?<=\[data-)[\w-]+/g));
    const property = (name) => name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase());
    const isSet = (name) => code.includes(`"data-${name}"`) || code.includes(`dataset.${property(name)}`);
    expect([...attributes].filter((name) => !isSet(name))).toEqual([]);
  });

  it("use only variables that the palette or the code sets", () => {
    const used = new Set(css.match(/(?<=var\()--ml-[\w-]+/g));
    const set = new Set(css.match(/--ml-[\w-]+(?=:)/g));
    const names = [...code.matchAll(/^ +(\w+): "(?:#|rgba)/gm)].map(([, name]) => `--ml-${name.replaceAll("_", "-")}`);
    const roles = ["train", "held-out", "chosen", "rejected"].map((name) => `--ml-${name}`);
    const known = new Set([...set, ...names, ...roles, ...(code.match(/--ml-[\w-]+/g) ?? [])]);
    expect([...used].filter((name) => !known.has(name))).toEqual([]);
  });
});
