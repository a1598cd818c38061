/** `Workbench`: run controls at the top, loss and settings on the left, charts in the middle. */

import { ChartGrid } from "./charts/chart_grid";
import { runButtons } from "./controls/buttons";
import { EarlierRun } from "./controls/earlier_run";
import { Notices } from "./controls/notices";
import { LossPicker } from "./controls/picker";
import { RunTabs } from "./controls/run_tabs";
import { SamplesPanel } from "./controls/samples_panel";
import { Settings } from "./controls/settings";
import { StepMenu } from "./controls/step_menu";
import { TokensPanel } from "./controls/tokens_panel";
import { Warnings } from "./controls/warnings";
import { DataPanel } from "./data/data_panel";
import { type Dispose, h } from "./lib/dom";
import { page } from "./page";
import type { RunStore } from "./run_store";

export function workbench(store: RunStore, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Loss workbench");
  const notices = new Notices(store);
  const showRefusal = (message: string) => notices.showRefusal(message);
  const buttons = runButtons(store, showRefusal);
  const picker = new LossPicker(store, showRefusal);
  const settings = new Settings(store);
  const warnings = new Warnings(store);
  const tabs = new RunTabs(store, showRefusal);
  const earlier = new EarlierRun(store, showRefusal);
  const menu = new StepMenu(store, true);
  const grid = new ChartGrid(store, theme, (place) => menu.open(place));
  const data = new DataPanel(store, theme);
  const samples = new SamplesPanel(store, theme);
  const tokens = new TokensPanel(store, theme);
  const side = h(
    "aside",
    { class: "ml-side", "aria-label": "Loss and settings" },
    picker.element,
    settings.element,
    warnings.element,
  );
  const body = h("div", { class: "ml-body" }, side, grid.element);
  root.append(
    tabs.element,
    buttons.element,
    notices.element,
    earlier.element,
    picker.wide,
    body,
    data.element,
    samples.element,
    tokens.element,
    menu.element,
  );
  return () => {
    for (const part of [buttons, notices, earlier, picker, settings, warnings, tabs, menu, grid, data, samples, tokens])
      part.dispose();
    dispose();
  };
}
