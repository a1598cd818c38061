/** The root element of a view, with its style sheet and theme. */

import charts from "./charts/charts.css";
import compare from "./compare/compare.css";
import controls from "./controls/controls.css";
import picker from "./controls/picker.css";
import samples from "./controls/samples.css";
import data from "./data/data.css";
import { type Dispose, h } from "./lib/dom";
import { paletteStyles, readTheme, type Theme, watchTheme } from "./lib/theme";
import overlay from "./overlay/overlay.css";
import base from "./style.css";
import table from "./table/table.css";
import tokens from "./tokens/tokens.css";

/** A widget that creates its own store: any number of views on one model. */
export interface StandaloneWidget {
  render(el: HTMLElement): Dispose;
  dispose(): void;
}

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
  const sheets = [paletteStyles(), controls, charts, base, picker, tokens, samples, data, overlay, compare, table];
  root.append(h("style", {}, sheets.join("")));
  el.append(root);
  let cached: Theme | null = null;
  const theme = () => {
    if (!cached && root.isConnected) cached = readTheme(root);
    return cached ?? readTheme(root);
  };
  const unwatch = watchTheme(() => {
    cached = null;
    theme();
  });
  // A view is rendered before it is in the document. Its background is known from its first layout on.
  const onLayout = new ResizeObserver(() => theme());
  onLayout.observe(root);
  const dispose = () => {
    onLayout.disconnect();
    unwatch();
    root.remove();
  };
  return { root, theme, dispose };
}
