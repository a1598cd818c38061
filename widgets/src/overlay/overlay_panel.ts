/** One metric of several runs: held-out data in thick lines, training batches in faint ones. */

import type { LegendEntry } from "../charts/chart_legend";
import { lossChangeSteps } from "../charts/marks";
import { type Drawing, Panel, type PanelView, pointMarker, stepAxis } from "../charts/panel";
import { valueAt } from "../history";
import { short } from "../lib/format";
import { extentWithin, fixedAxis, roundRange, stepRange } from "../lib/scale";
import { smooth } from "../lib/smooth";
import type { LabelledRun } from "../multi_run_store";
import { heldOutCurve, type OverlayChart, trainingCurve } from "./curves";
import { type RunStyle, runStyle } from "./run_style";

/** A held-out curve of more points is drawn without markers. */
const MAX_MARKERS = 60;

interface Points {
  x: readonly number[];
  y: readonly number[];
}

interface RunCurves {
  traces: Record<string, unknown>[];
  points: Points[];
  last: number | undefined;
  valueAt: (step: number) => number | undefined;
  count: number;
}

export class OverlayPanel extends Panel {
  constructor(
    private readonly overlay: OverlayChart,
    private readonly runs: () => readonly LabelledRun[],
    private readonly isHidden: (index: number) => boolean,
  ) {
    const { name, title, definition, unit, bounds } = overlay;
    super({ name, title, definition, unit, kind: "lines", axis: "", counts: "", lines: [], bounds, overlay: null });
  }

  override drawing(view: PanelView): Drawing {
    const traces: Record<string, unknown>[] = [];
    const points: Points[] = [];
    const legend: LegendEntry[] = [];
    const readers: ((step: number) => LegendEntry)[] = [];
    let count = 0;
    let last: number | undefined;
    let done = 0;
    let total = 0;
    this.runs().forEach((run, index) => {
      const { state } = run.store;
      done = Math.max(done, state?.steps_done ?? 0);
      total = Math.max(total, state?.steps_total ?? 0);
      if (this.isHidden(index)) return;
      const style = runStyle(index, view.theme.dark);
      const entry = { label: run.label, colour: style.colour };
      const curves = this.curves(run, style, view);
      if (!curves) {
        legend.push({ ...entry, value: "–" });
        readers.push(() => ({ ...entry, value: "–" }));
        return;
      }
      traces.push(...curves.traces);
      points.push(...curves.points);
      count += curves.count;
      last ??= curves.last;
      legend.push({ ...entry, value: short(curves.last) });
      readers.push((step) => ({ ...entry, value: short(curves.valueAt(step)) }));
    });
    const steps = view.store.view.range ?? stepRange(done, total);
    const { bounds } = this.overlay;
    return {
      traces,
      layout: {
        hovermode: false,
        xaxis: stepAxis(steps, view.theme),
        yaxis: bounds ? fixedAxis(bounds) : { range: roundRange(...extentWithin(points, steps)) },
      },
      legend,
      points: count,
      last,
      isOverSteps: true,
      readout: (step) => readers.map((read) => read(step)),
      attributes: { "data-runs": legend.length },
    };
  }

  private curves({ store }: LabelledRun, { colour, dash }: RunStyle, view: PanelView): RunCurves | null {
    const training = trainingCurve(store, this.overlay);
    const heldOut = heldOutCurve(store, this.overlay);
    if (!training && !heldOut) return null;
    const traces: Record<string, unknown>[] = [];
    const points: Points[] = [];
    if (training) {
      const y = smooth(training, view.halfLife, lossChangeSteps(store));
      const line = heldOut ? { color: colour, width: 1.2 } : { color: colour, width: 2, dash };
      traces.push({
        ...{ type: "scatter", mode: "lines", x: training.steps, y, line, opacity: heldOut ? 0.42 : 1 },
        ...pointMarker(training.length, colour),
      });
      points.push({ x: training.steps, y });
    }
    if (heldOut) {
      traces.push({
        ...{ type: "scatter", mode: heldOut.steps.length > MAX_MARKERS ? "lines" : "lines+markers" },
        ...{ x: heldOut.steps, y: heldOut.values },
        line: { color: colour, width: 2, dash },
        marker: { color: colour, size: 4.5 },
      });
      points.push({ x: heldOut.steps, y: heldOut.values });
    }
    const valueAtStep = (step: number) => {
      if (!heldOut) return valueAt(training ?? undefined, step, false, undefined);
      const after = heldOut.steps.findIndex((measured) => measured > step);
      return heldOut.values[(after < 0 ? heldOut.steps.length : after) - 1];
    };
    return {
      traces,
      points,
      last: heldOut ? heldOut.values.at(-1) : training?.mean.at(-1),
      valueAt: valueAtStep,
      count: (training?.points ?? 0) + (heldOut?.steps.length ?? 0),
    };
  }
}
