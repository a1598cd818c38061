/**
 * The module that anywidget loads: a few lines that load the widgets, whose code is a text in here.
 *
 * anywidget gives a module two seconds to load and initialize. If the module needs longer, anywidget drops every message
 * to that widget for as long as the page is open. On a busy machine, compiling all widgets with plotly takes longer than
 * that; compiling these lines does not. All widgets of a page share one copy of the code.
 */

import source from "bundled:widgets.ts";
import type { Dispose } from "./lib/dom";
import type { Model } from "./requests";
import type createWidget from "./widgets";

interface WidgetModule {
  default: typeof createWidget;
}

declare global {
  /** The widgets' code, by its text: after an update of the package, a page may show widgets of two versions. */
  var mintLabModules: Map<string, Promise<WidgetModule>> | undefined;
}

function load(): Promise<WidgetModule> {
  globalThis.mintLabModules ??= new Map();
  const loaded = globalThis.mintLabModules.get(source);
  if (loaded) return loaded;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const module = (import(url) as Promise<WidgetModule>).finally(() => URL.revokeObjectURL(url));
  globalThis.mintLabModules.set(source, module);
  module.catch(() => globalThis.mintLabModules?.delete(source)); // the next widget tries again
  return module;
}

export default () => {
  let opened: Promise<ReturnType<typeof createWidget>>;
  let dispose: Promise<Dispose> | undefined;
  return {
    initialize({ model }: { model: Model }): Dispose {
      opened = load().then((module) => module.default());
      dispose = opened.then((widget) => widget.initialize({ model }));
      return () => void dispose?.then((end) => end());
    },
    async render({ model, el }: { model: Model; el: HTMLElement }): Promise<Dispose | undefined> {
      await dispose;
      return (await opened).render({ model, el });
    },
  };
};
