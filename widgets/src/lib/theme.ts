/** Colours of a view: those of the surrounding page for text and lines, those of the palette for curves. */

import type { Line } from "../messages";
import type { Dispose } from "./dom";
import { BASE, ROLES } from "./palette";

export interface Theme {
  dark: boolean;
  text: string;
  muted: string;
  grid: string;
  surface: string;
  font: string;
  roles: Readonly<Record<Line["role"], string>>;
}

/** Variables of JupyterLab and VS Code that replace a colour of the palette. */
const HOST_VARIABLES: Record<string, readonly [string, string]> = {
  text: ["--jp-content-font-color1", "--vscode-editor-foreground"],
  surface: ["--jp-layout-color1", "--vscode-editor-background"],
};

/** Style rules with the colours of the palette as variables: `--ml-text`, `--ml-train` and so on. */
export function paletteStyles(): string {
  const variables = (mode: "light" | "dark") =>
    Object.entries({ ...BASE[mode], ...ROLES[mode] })
      .map(([name, colour]) => {
        const [lab, code] = HOST_VARIABLES[name] ?? [];
        const value = lab && code ? `var(${lab}, var(${code}, ${colour}))` : colour;
        return `--ml-${name.replaceAll("_", "-")}: ${value};`;
      })
      .join(" ");
  return `.mint-lab { ${variables("light")} }\n.mint-lab[data-theme="dark"] { ${variables("dark")} }\n`;
}

/** Read the theme at `element`, and record on `element` whether it is light or dark. */
export function readTheme(element: HTMLElement): Theme {
  const dark = luminance(backgroundOf(element)) < 0.4;
  element.dataset.theme = dark ? "dark" : "light";
  const style = getComputedStyle(element);
  const variable = (name: string) => style.getPropertyValue(name).trim();
  return {
    dark,
    text: variable("--ml-text"),
    muted: variable("--ml-muted"),
    grid: variable("--ml-grid"),
    surface: variable("--ml-surface"),
    font: style.fontFamily,
    roles: dark ? ROLES.dark : ROLES.light,
  };
}

/**
 * Call `changed` after the surrounding page changed its theme: when an attribute of the root changes by which JupyterLab,
 * VS Code and Colab announce their theme, or when a style sheet has loaded, which may be long after the attribute.
 */
export function watchTheme(changed: () => void): Dispose {
  let timer = 0;
  const schedule = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(changed);
  };
  const observer = new MutationObserver(schedule);
  const attributes = {
    attributes: true,
    attributeFilter: ["class", "data-jp-theme-name", "data-jp-theme-light", "style", "theme"],
  };
  observer.observe(document.body, attributes);
  observer.observe(document.documentElement, attributes);
  const onLoad = ({ target }: Event) => {
    if (target instanceof HTMLLinkElement) schedule();
  };
  document.addEventListener("load", onLoad, true); // "load" does not bubble, but it can be captured
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", schedule);
  return () => {
    observer.disconnect();
    document.removeEventListener("load", onLoad, true);
    media.removeEventListener("change", schedule);
    window.clearTimeout(timer);
  };
}

/** The first opaque background among the ancestors of `element`. */
function backgroundOf(element: HTMLElement): [number, number, number] {
  for (let node: HTMLElement | null = element.parentElement; node; node = node.parentElement) {
    const parts =
      getComputedStyle(node)
        .backgroundColor.match(/[\d.]+/g)
        ?.map(Number) ?? [];
    const [red, green, blue, alpha] = parts;
    if (red !== undefined && green !== undefined && blue !== undefined && (alpha ?? 1) > 0.5) return [red, green, blue];
  }
  return window.matchMedia("(prefers-color-scheme: dark)").matches ? [17, 17, 17] : [255, 255, 255];
}

function luminance([red, green, blue]: [number, number, number]): number {
  return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
}
