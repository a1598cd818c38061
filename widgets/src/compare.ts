/** `Compare`: several runs that differ in their loss alone, on top of each other. */

import { CompareControls } from "./compare/controls";
import { CosinesPanel } from "./compare/cosines";
import { ResultsTable } from "./compare/results";
import { CompareStore } from "./compare/store";
import { type Dispose, h, setAttributes, setText } from "./dom";
import { OverlayGrid } from "./overlay/grid";
import { OverlayLegend } from "./overlay/legend";
import { page } from "./page";
import { BUSY, type Model } from "./requests";
import { watchTheme } from "./theme";

/** A widget that shares what its views show by itself: any number of views on one model. */
export interface Own {
  render(el: HTMLElement): Dispose;
  dispose(): void;
}

export function openCompare(model: Model): Own {
  const store = new CompareStore(model);
  return { render: (el) => compare(store, el), dispose: () => store.dispose() };
}

function compare(store: CompareStore, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Comparison of losses");
  const runs = () => store.runs;
  const controls = new CompareControls(store);
  const line = h("span");
  const notice = h("div", { class: "ml-line", "aria-live": "polite" }, line);
  const grid = new OverlayGrid(runs, store.view, theme);
  const legend = new OverlayLegend(runs, store.view, theme, () => {
    store.tell();
    grid.schedule();
  });
  const results = new ResultsTable(theme);
  const cosines = new CosinesPanel(store, theme);
  const below = h("div", { class: "ml-below" }, results.element, cosines.element);
  root.append(controls.element, notice, legend.element, grid.element, below);
  const draw = () => {
    const { text, kind } = advice(store);
    setText(line, text);
    setAttributes(notice, { "data-kind": kind, title: text });
    legend.draw();
    results.draw(store.runs);
    cosines.draw();
    grid.told();
  };
  const disposers = [store.subscribe(draw), watchTheme(draw)];
  draw();
  return () => {
    for (const forget of disposers) forget();
    for (const part of [controls, legend, grid, cosines]) part.dispose();
    dispose();
  };
}

/** One line: what a person should know now. */
function advice(store: CompareStore): { text: string; kind: string } {
  const problem = store.runs.map((run) => run.store.problem).find(Boolean);
  if (problem) return { text: problem, kind: "warning" };
  if (store.late) return { text: BUSY, kind: "warning" };
  if (store.refused) return { text: store.refused, kind: "warning" };
  const failed = store.runs.find((run) => run.store.state?.failure);
  if (failed) {
    const { failure } = failed.store.state ?? {};
    return { text: `${failed.label}, step ${failure?.step}: ${failure?.message}`, kind: "warning" };
  }
  const data = store.runs.map((run) => run.store.state?.data).find(Boolean);
  const alike = `Same base model, seed and batches${data ? ` (${data})` : ""}; only the loss differs.`;
  if (store.status === "ready") return { text: `${alike} No step has been made yet.`, kind: "quiet" };
  const loading = store.status === "running" && store.runs.every((run) => run.store.seen === 0);
  return { text: loading ? "Loading the model and the data…" : alike, kind: "quiet" };
}
