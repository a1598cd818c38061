/**
 * The module that anywidget loads, for every widget of the package; `part` says which one this is.
 *
 * anywidget hands `initialize` and `render` different model objects, so what views share lives in this closure: one store
 * a widget, made once, and any number of views on it.
 */

import type { Dispose } from "./dom";
import { liveCharts } from "./live_charts";
import { type Host, Store } from "./store";
import { workbench } from "./workbench";

const PARTS: Record<string, (store: Store, el: HTMLElement) => Dispose> = { workbench, live_charts: liveCharts };

export default () => {
  let store: Store | undefined;
  return {
    initialize({ model }: { model: Host }): Dispose {
      store = new Store(model);
      return () => store?.dispose();
    },
    render({ model, el }: { model: Host; el: HTMLElement }): Dispose | undefined {
      const part = PARTS[String(model.get("part"))];
      if (!part || !store) throw new Error(`unknown part ${String(model.get("part"))}`);
      return part(store, el);
    },
  };
};
