/** The ground a widget stands on: its root element, style sheet and theme. */

import charts from "./charts/charts.css";
import compare from "./compare/compare.css";
import controls from "./controls/controls.css";
import picker from "./controls/picker.css";
import samples from "./controls/samples.css";
import { type Dispose, h } from "./dom";
import overlay from "./overlay/overlay.css";
import css from "./style.css";
import table from "./table/table.css";
import { readTheme, type Theme, watchTheme } from "./theme";
import tokens from "./tokens/tokens.css";

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
  root.append(h("style", {}, controls + charts + css + picker + tokens + samples + overlay + compare + table));
  el.append(root);
  let known: Theme | null = null;
  const theme = () => {
    if (!known && root.isConnected) known = readTheme(root);
    return known ?? readTheme(root);
  };
  const unwatch = watchTheme(() => {
    known = null;
    theme();
  });
  // A view is rendered before it is in the document: only its first layout tells what it stands on.
  const placed = new ResizeObserver(() => theme());
  placed.observe(root);
  const dispose = () => {
    placed.disconnect();
    unwatch();
    root.remove();
  };
  return { root, theme, dispose };
}
