/** `RunTable`: the runs of a folder; the ticked ones in the same charts, the open one with all of its charts. */

import { ChartGrid } from "./charts/chart_grid";
import { type Dispose, h, listen, setAttributes, setText } from "./lib/dom";
import { visible } from "./lib/text";
import { type Theme, watchTheme } from "./lib/theme";
import { MultiRunStore } from "./multi_run_store";
import { OverlayGrid } from "./overlay/overlay_grid";
import { OverlayLegend } from "./overlay/overlay_legend";
import { page, type StandaloneWidget } from "./page";
import { KERNEL_BUSY, type Model } from "./requests";
import { RunRows } from "./table/run_rows";
import { TableState } from "./table/table_state";

export function openRunTable(model: Model): StandaloneWidget {
  const store = new MultiRunStore(model, ["listing"]);
  const table = new TableState(store);
  return { render: (el) => renderRunTable(store, table, el), dispose: () => store.dispose() };
}

function renderRunTable(store: MultiRunStore, table: TableState, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Table of runs");
  const title = h("span", { class: "ml-title" });
  const count = h("span", { class: "ml-quiet" });
  const refresh = h("button", { type: "button", class: "ml-button" }, "Refresh");
  const bar = h("header", { class: "ml-table-bar" }, title, count, refresh);
  const lineText = h("span");
  const line = h("div", { class: "ml-line ml-table-line", "aria-live": "polite" }, lineText);
  const rows = new RunRows(store, table, theme);
  const charts = new TableCharts(store, theme);
  root.append(bar, line, rows.element, charts.element);
  const draw = () => {
    rows.draw();
    const { listing } = table;
    const warning = store.late ? KERNEL_BUSY : store.refusal;
    const total = listing.rows.length + listing.more;
    const shown = listing.more ? `, the newest ${listing.rows.length} shown` : "";
    setText(title, visible(listing.folder));
    setText(count, `${total} ${total === 1 ? "run" : "runs"}${shown}`);
    setText(
      lineText,
      warning || (total ? "Tick runs to show them in the same charts." : "No run is recorded here yet."),
    );
    setAttributes(line, { "data-kind": warning ? "warning" : "quiet" });
    charts.draw();
  };
  const disposers = [
    store.subscribe(draw),
    watchTheme(draw),
    listen(refresh, "click", () => void store.request({ type: "list" })),
  ];
  draw();
  return () => {
    for (const disposeOne of disposers) disposeOne();
    charts.dispose();
    dispose();
  };
}

/** Below the table: the ticked runs together, and the open run by itself. */
class TableCharts {
  readonly element = h("div", { class: "ml-table-charts" });
  private readonly tickedCard = h("section", {
    class: "ml-card ml-table-card",
    "aria-label": "Ticked runs",
    hidden: true,
  });
  private readonly openCard = h("section", { class: "ml-card ml-table-card", "aria-label": "Open run", hidden: true });
  private readonly openName = h("bdi", { class: "ml-title" });
  private readonly grid: OverlayGrid;
  private readonly legend: OverlayLegend;
  private open: { label: string; grid: ChartGrid } | null = null;

  constructor(
    private readonly store: MultiRunStore,
    private readonly theme: () => Theme,
  ) {
    const runs = () => store.runs;
    this.grid = new OverlayGrid(runs, store.view, theme);
    this.legend = new OverlayLegend(runs, store.view, theme, () => store.notify());
    this.tickedCard.append(this.legend.element, this.grid.element);
    this.openCard.append(h("div", { class: "ml-heading" }, this.openName));
    this.element.append(this.tickedCard, this.openCard);
  }

  dispose(): void {
    this.grid.dispose();
    this.legend.dispose();
    this.open?.grid.dispose();
    this.element.remove();
  }

  draw(): void {
    const { runs, opened } = this.store;
    this.tickedCard.hidden = runs.length === 0;
    this.legend.draw();
    this.grid.schedule();
    this.openCard.hidden = opened === null;
    if (this.open && this.open.label !== opened?.label) {
      this.open.grid.dispose();
      this.open = null;
    }
    if (opened && !this.open) {
      this.open = { label: opened.label, grid: new ChartGrid(opened.store, this.theme) };
      setText(this.openName, visible(opened.label));
      this.openCard.append(this.open.grid.element);
    }
  }
}
