/** `Workbench`: run controls above, loss and settings at the left, charts in the middle. */

import { ChartGrid } from "./charts/grid";
import { RunControls } from "./controls/buttons";
import { Notices } from "./controls/notices";
import { LossPicker } from "./controls/picker";
import { SamplesPanel } from "./controls/samples";
import { Settings } from "./controls/settings";
import { TokensPanel } from "./controls/tokens";
import { Warnings } from "./controls/warnings";
import { type Dispose, h } from "./dom";
import { page } from "./page";
import type { Store } from "./store";

export function workbench(store: Store, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Loss workbench");
  const notices = new Notices(store);
  const refuse = (message: string) => notices.refuse(message);
  const controls = new RunControls(store, refuse);
  const picker = new LossPicker(store, refuse);
  const settings = new Settings(store);
  const warnings = new Warnings(store);
  const grid = new ChartGrid(store, theme);
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
  root.append(controls.element, notices.element, picker.wide, body, samples.element, tokens.element);
  return () => {
    for (const part of [controls, notices, picker, settings, warnings, grid, samples, tokens]) part.dispose();
    dispose();
  };
}
