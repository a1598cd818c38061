/** The parts of plotly.js that the charts use: its core with lines, bars and heat maps. */

import bar from "plotly.js/lib/bar";
import Plotly from "plotly.js/lib/core";
import heatmap from "plotly.js/lib/heatmap";

Plotly.register([bar, heatmap]);

/** The properties that plotly adds to the element of a plot. */
export interface Plot {
  _fullLayout?: {
    xaxis?: {
      _offset: number;
      _length: number;
      range: [number, number];
      d2p: (value: number) => number;
      p2d: (pixel: number) => number;
    };
  };
  on(event: "plotly_relayout" | "plotly_doubleclick", handler: (change: Record<string, unknown>) => void): void;
}

export default Plotly;
