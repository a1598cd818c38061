/** Colours: the surrounding page's own for text and lines, Okabe and Ito's for curves (safe for colour-blind readers). */

import type { Dispose } from "./dom";
import type { Line } from "./protocol";

export interface Theme {
  dark: boolean;
  text: string;
  muted: string;
  grid: string;
  surface: string;
  font: string;
  roles: Record<Line["role"], string>;
}

const LIGHT: Theme["roles"] = { train: "#0072b2", held_out: "#e69f00", chosen: "#009e73", rejected: "#d55e00" };
const DARK: Theme["roles"] = { train: "#56b4e9", held_out: "#e69f00", chosen: "#2bc39a", rejected: "#f0803c" };

/** Reads the theme where `element` stands, and marks `element` with it. */
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
    roles: dark ? DARK : LIGHT,
  };
}

/**
 * Calls `changed` after the surrounding page changed its theme: an attribute of its root by which JupyterLab, VS Code and
 * Colab tell their theme, or a style sheet that has arrived, be it long after the attribute.
 */
export function watchTheme(changed: () => void): Dispose {
  let timer = 0;
  const soon = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(changed);
  };
  const observer = new MutationObserver(soon);
  const attributes = {
    attributes: true,
    attributeFilter: ["class", "data-jp-theme-name", "data-jp-theme-light", "style", "theme"],
  };
  observer.observe(document.body, attributes);
  observer.observe(document.documentElement, attributes);
  const arrived = ({ target }: Event) => {
    if (target instanceof HTMLLinkElement) soon();
  };
  document.addEventListener("load", arrived, true); // does not bubble: caught on its way down
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", soon);
  return () => {
    observer.disconnect();
    document.removeEventListener("load", arrived, true);
    media.removeEventListener("change", soon);
    window.clearTimeout(timer);
  };
}

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
