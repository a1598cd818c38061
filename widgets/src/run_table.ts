/** `RunTable`: the runs of a folder; ticked ones on top of each other, one with all of its charts. */

import { ChartGrid } from "./charts/grid";
import type { Own } from "./compare";
import { type Dispose, h, listen, setAttributes, setText } from "./dom";
import { OverlayGrid } from "./overlay/grid";
import { OverlayLegend } from "./overlay/legend";
import { page } from "./page";
import { BUSY, type Model } from "./requests";
import { RunRows } from "./table/rows";
import { TableStore } from "./table/store";
import { type Theme, watchTheme } from "./theme";
import { visible } from "./tokens/text";

export function openRunTable(model: Model): Own {
  const store = new TableStore(model);
  return { render: (el) => runTable(store, el), dispose: () => store.dispose() };
}

function runTable(store: TableStore, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Table of runs");
  const title = h("span", { class: "ml-title" });
  const count = h("span", { class: "ml-quiet" });
  const again = h("button", { type: "button", class: "ml-button" }, "Refresh");
  const bar = h("header", { class: "ml-table-bar" }, title, count, again);
  const words = h("span");
  const line = h("div", { class: "ml-line ml-table-line", "aria-live": "polite" }, words);
  const rows = new RunRows(store, theme);
  const charts = new Charts(store, theme);
  root.append(bar, line, rows.element, charts.element);
  const draw = () => {
    rows.draw();
    const { listing } = store;
    const refused = store.late ? BUSY : store.refused;
    const all = listing.rows.length + listing.more;
    setText(title, visible(listing.folder));
    setText(
      count,
      `${all} ${all === 1 ? "run" : "runs"}${listing.more ? `, the newest ${listing.rows.length} shown` : ""}`,
    );
    setText(
      words,
      refused || (all ? "Tick runs to lay their curves on top of each other." : "No run is recorded here yet."),
    );
    setAttributes(line, { "data-kind": refused ? "warning" : "quiet" });
    charts.draw();
  };
  const disposers = [
    store.subscribe(draw),
    watchTheme(draw),
    listen(again, "click", () => void store.request({ type: "list" })),
  ];
  draw();
  return () => {
    for (const forget of disposers) forget();
    charts.dispose();
    dispose();
  };
}

/** Below the table: the ticked runs together, and the open one by itself. */
class Charts {
  readonly element = h("div", { class: "ml-table-charts" });
  private readonly together = h("section", {
    class: "ml-card ml-table-card",
    "aria-label": "Ticked runs",
    hidden: true,
  });
  private readonly alone = h("section", { class: "ml-card ml-table-card", "aria-label": "Open run", hidden: true });
  private readonly name = h("bdi", { class: "ml-title" });
  private readonly grid: OverlayGrid;
  private readonly legend: OverlayLegend;
  private open: { label: string; grid: ChartGrid } | null = null;

  constructor(
    private readonly store: TableStore,
    private readonly theme: () => Theme,
  ) {
    const runs = () => store.shown;
    this.grid = new OverlayGrid(runs, store.view, theme);
    this.legend = new OverlayLegend(runs, store.view, theme, () => store.tell());
    this.together.append(this.legend.element, this.grid.element);
    this.alone.append(h("div", { class: "ml-heading" }, this.name));
    this.element.append(this.together, this.alone);
  }

  dispose(): void {
    this.grid.dispose();
    this.legend.dispose();
    this.open?.grid.dispose();
    this.element.remove();
  }

  draw(): void {
    const { shown, opened } = this.store;
    this.together.hidden = shown.length === 0;
    this.legend.draw();
    this.grid.schedule();
    this.alone.hidden = opened === null;
    if (this.open && this.open.label !== opened?.label) {
      this.open.grid.dispose();
      this.open = null;
    }
    if (opened && !this.open) {
      this.open = { label: opened.label, grid: new ChartGrid(opened.store, this.theme) };
      setText(this.name, visible(opened.label));
      this.alone.append(this.open.grid.element);
    }
  }
}
