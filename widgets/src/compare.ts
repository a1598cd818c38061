/** `Compare`: several runs that differ only in their loss, in the same charts. */

import { Announcer } from "./announce";
import { CosinesPanel, type CosinesView } from "./compare/cosines";
import { ResultsTable } from "./compare/results";
import { comparisonButtons } from "./controls/buttons";
import { type Dispose, h, setAttributes, setText } from "./lib/dom";
import { watchTheme } from "./lib/theme";
import { MultiRunStore } from "./multi_run_store";
import { OverlayGrid } from "./overlay/overlay_grid";
import { OverlayLegend } from "./overlay/overlay_legend";
import { page, type StandaloneWidget } from "./page";
import { KERNEL_BUSY, type Model } from "./requests";

export function openCompare(model: Model): StandaloneWidget {
  const store = new MultiRunStore(model, ["cosines"]);
  const view: CosinesView = { weights: null };
  const announcers = store.runs.map(
    ({ store: run }, number) => new Announcer(run, window, () => store.ask({ type: "stop", run: number })),
  );
  return {
    render: (el) => {
      const disposers = [renderCompare(store, view, el), ...announcers.map((announcer) => announcer.addView(el))];
      return () => {
        for (const dispose of disposers) dispose();
      };
    },
    dispose: () => {
      for (const announcer of announcers) announcer.dispose();
      store.dispose();
    },
  };
}

function renderCompare(store: MultiRunStore, view: CosinesView, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Comparison of losses");
  const runs = () => store.runs;
  const buttons = comparisonButtons(store);
  const line = h("span");
  const notice = h("div", { class: "ml-line", "aria-live": "polite" }, line);
  const grid = new OverlayGrid(runs, store.view, theme);
  const legend = new OverlayLegend(runs, store.view, theme, () => {
    store.notify();
    grid.schedule();
  });
  const results = new ResultsTable(theme);
  const cosines = new CosinesPanel(store, view, theme);
  const below = h("div", { class: "ml-below" }, results.element, cosines.element);
  root.append(buttons.element, notice, legend.element, grid.element, below);
  const draw = () => {
    const { text, kind } = noticeOf(store);
    setText(line, text);
    setAttributes(notice, { "data-kind": kind, title: text });
    legend.draw();
    results.draw(store.runs);
    cosines.draw();
    grid.onRunsChanged();
  };
  const disposers = [store.subscribe(draw), watchTheme(draw)];
  draw();
  return () => {
    for (const disposeOne of disposers) disposeOne();
    for (const part of [buttons, legend, grid, cosines]) part.dispose();
    dispose();
  };
}

/** The most important thing to say, in one line. */
function noticeOf(store: MultiRunStore): { text: string; kind: "warning" | "quiet" } {
  const problem = store.runs.map((run) => run.store.problem).find(Boolean);
  if (problem) return { text: problem, kind: "warning" };
  if (store.late) return { text: KERNEL_BUSY, kind: "warning" };
  if (store.refusal) return { text: store.refusal, kind: "warning" };
  const failed = store.runs.find((run) => run.store.state?.failure);
  if (failed) {
    const { failure } = failed.store.state ?? {};
    return { text: `${failed.label}, step ${failure?.step}: ${failure?.message}`, kind: "warning" };
  }
  const data = store.runs.map((run) => run.store.state?.data).find(Boolean);
  const setup = `Same base model, seed and batches${data ? ` (${data})` : ""}; only the loss differs.`;
  if (store.status === "ready") return { text: `${setup} No step is complete yet.`, kind: "quiet" };
  const isLoading = store.status === "running" && store.runs.every((run) => run.store.seen === 0);
  return { text: isLoading ? "Loading the model and the data…" : setup, kind: "quiet" };
}
