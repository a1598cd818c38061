/** `LiveCharts`: the charts of a run, alone. */

import { ChartGrid } from "./charts/grid";
import type { Dispose } from "./dom";
import { page } from "./page";
import type { Store } from "./store";

export function liveCharts(store: Store, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Live charts");
  const grid = new ChartGrid(store, theme);
  root.append(grid.element);
  return () => {
    grid.dispose();
    dispose();
  };
}
