declare module "*.css" {
  const text: string;
  export default text;
}

declare module "plotly.js/lib/core" {
  type Json = Record<string, unknown>;
  interface PlotlyCore {
    register(modules: unknown[]): void;
    react(element: HTMLElement, data: Json[], layout: Json, config: Json): Promise<HTMLElement>;
    purge(element: HTMLElement): void;
    toImage(element: HTMLElement, options: Json): Promise<string>;
    Plots: { resize(element: HTMLElement): Promise<void> | undefined };
  }
  const Plotly: PlotlyCore;
  export default Plotly;
}

declare module "plotly.js/lib/bar" {
  const module: unknown;
  export default module;
}

declare module "plotly.js/lib/heatmap" {
  const module: unknown;
  export default module;
}

/** A module of this folder with all it imports, as text; see `build.mjs`. */
declare module "bundled:*" {
  const text: string;
  export default text;
}
