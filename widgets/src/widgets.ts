/**
 * The module that anywidget loads, for every widget of the package; the trait `part` says which widget this is.
 *
 * anywidget passes different model objects to `initialize` and `render`, so what views share is stored in this closure:
 * one store per widget, and any number of views on it.
 */

import { Announcer } from "./announce";
import { openCompare } from "./compare";
import type { Dispose } from "./lib/dom";
import type { StandaloneWidget } from "./page";
import { liveCharts, lossPicker, runControls, samplesTable, tokenView, warnings } from "./parts";
import { Presence } from "./presence";
import type { Model } from "./requests";
import { RunStore } from "./run_store";
import { openRunTable } from "./run_table";
import { workbench } from "./workbench";

/** Widgets that show one run. */
const RUN_WIDGETS: Record<string, (store: RunStore, el: HTMLElement) => Dispose> = {
  workbench,
  live_charts: liveCharts,
  loss_picker: lossPicker,
  run_controls: runControls,
  samples_table: samplesTable,
  warnings,
};
/** Widgets that show several runs. */
const MULTI_RUN_WIDGETS: Record<string, (model: Model) => StandaloneWidget> = {
  compare: openCompare,
  run_table: openRunTable,
};

export default () => {
  let store: RunStore | undefined;
  let announcer: Announcer | undefined;
  let standalone: StandaloneWidget | undefined;
  let presence: Presence | undefined;
  const renderPart = (model: Model, el: HTMLElement): Dispose => {
    const part = String(model.get("part"));
    if (part === "token_view") return tokenView(model, el);
    if (standalone) return standalone.render(el);
    const render = RUN_WIDGETS[part];
    if (!render || !store) throw new Error(`there is no widget ${part}; update mint_lab and reload the page`);
    return render(store, el);
  };
  return {
    initialize({ model }: { model: Model }): Dispose {
      const part = String(model.get("part"));
      if (part in RUN_WIDGETS) {
        store = new RunStore(model);
        announcer = new Announcer(store);
      }
      standalone = MULTI_RUN_WIDGETS[part]?.(model);
      presence = new Presence(model);
      return () => {
        presence?.dispose();
        announcer?.dispose();
        store?.dispose();
        standalone?.dispose();
      };
    },
    render({ model, el }: { model: Model; el: HTMLElement }): Dispose {
      const disposers = [renderPart(model, el), announcer?.addView(el), presence?.addView(el)];
      return () => {
        for (const dispose of disposers.reverse()) dispose?.();
      };
    },
  };
};
