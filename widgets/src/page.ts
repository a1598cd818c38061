/** The ground a widget stands on: its root element, style sheet and theme. */

import { type Dispose, h } from "./dom";
import css from "./style.css";
import { readTheme, type Theme, watchTheme } from "./theme";

export interface Page {
  root: HTMLElement;
  theme: () => Theme;
  dispose: Dispose;
}

export function page(el: HTMLElement, label: string): Page {
  const root = h("div", {
    class: "mint-lab",
    role: "region",
    "aria-label": label,
  });
  root.append(h("style", {}, css));
  el.append(root);
  let known: Theme | null = null;
  const unwatch = watchTheme(() => {
    known = null;
    readTheme(root);
  });
  readTheme(root);
  const theme = () => {
    if (!known && root.isConnected) known = readTheme(root);
    return known ?? readTheme(root);
  };
  const dispose = () => {
    unwatch();
    root.remove();
  };
  return { root, theme, dispose };
}
