/**
 * The module that anywidget loads, for every widget of the package; `part` says which one this is.
 *
 * anywidget hands `initialize` and `render` different model objects, so what views share lives in this closure: one store
 * a widget, made once, and any number of views on it.
 */

import { Announcer } from "./announce";
import { type Own, openCompare } from "./compare";
import type { Dispose } from "./dom";
import { liveCharts } from "./live_charts";
import { lossPicker, runControls, samplesTable, warnings } from "./parts";
import type { Model } from "./requests";
import { openRunTable } from "./run_table";
import { type Host, Store } from "./store";
import { tokenView } from "./token_view";
import { workbench } from "./workbench";

const PARTS: Record<string, (store: Store, el: HTMLElement) => Dispose> = {
  workbench,
  live_charts: liveCharts,
  loss_picker: lossPicker,
  run_controls: runControls,
  samples_table: samplesTable,
  warnings,
};
/** Widgets of several runs, which keep what their views share themselves. */
const OWN: Record<string, (model: Model) => Own> = { compare: openCompare, run_table: openRunTable };

export default () => {
  let store: Store | undefined;
  let announcer: Announcer | undefined;
  let own: Own | undefined;
  return {
    initialize({ model }: { model: Host & Model }): Dispose {
      const name = String(model.get("part"));
      if (name in PARTS) {
        store = new Store(model);
        announcer = new Announcer(store);
      }
      own = OWN[name]?.(model);
      return () => {
        announcer?.dispose();
        store?.dispose();
        own?.dispose();
      };
    },
    render({ model, el }: { model: Host; el: HTMLElement }): Dispose | undefined {
      if (model.get("part") === "token_view") return tokenView(model, el);
      if (own) return own.render(el);
      const part = PARTS[String(model.get("part"))];
      if (!part || !store) throw new Error(`unknown part ${String(model.get("part"))}`);
      const dispose = part(store, el);
      const unview = announcer?.view(el);
      return () => {
        unview?.();
        dispose();
      };
    },
  };
};
