/** One metric of several runs: held-out data strong, training batches faint. */

import { alone, changesOf } from "../charts/lines";
import { axisTitle, type Drawing, type LegendEntry, Panel, type View } from "../charts/panel";
import { short } from "../format";
import { valueAt } from "../readout";
import { extentWithin, padded, roundRange, stepRange } from "../scale";
import { smooth } from "../smooth";
import { heldOutOf, type OverlayChart, type OverlayRun, trainingOf } from "./curves";
import { type Style, styleOf } from "./styles";

const MARKED = 60;

interface Points {
  x: readonly number[];
  y: readonly number[];
}

export class OverlayPanel extends Panel {
  constructor(
    private readonly what: OverlayChart,
    private readonly runs: () => readonly OverlayRun[],
    private readonly hidden: (place: number) => boolean,
  ) {
    super({ name: what.name, title: what.title, unit: what.unit, kind: "lines", lines: [], bounds: what.bounds });
  }

  protected drawing(view: View): Drawing {
    const traces: Record<string, unknown>[] = [];
    const columns: Points[] = [];
    const legend: LegendEntry[] = [];
    const readers: ((step: number) => LegendEntry)[] = [];
    let points = 0;
    let last: number | undefined;
    let done = 0;
    let total = 0;
    this.runs().forEach((run, place) => {
      const { state } = run.store;
      done = Math.max(done, state?.steps_done ?? 0);
      total = Math.max(total, state?.steps_total ?? 0);
      if (this.hidden(place)) return;
      const style = styleOf(place, view.theme.dark);
      const drawn = this.curves(run, style, view);
      if (!drawn) {
        const empty = { label: run.label, colour: style.colour, value: "–" };
        legend.push(empty);
        readers.push(() => empty);
        return;
      }
      traces.push(...drawn.traces);
      columns.push(...drawn.columns);
      points += drawn.points;
      last ??= drawn.last;
      const entry = { label: run.label, colour: style.colour };
      legend.push({ ...entry, value: short(drawn.last) });
      readers.push((step) => ({ ...entry, value: short(drawn.at(step)) }));
    });
    const steps = view.store.view.range ?? stepRange(done, total);
    const range = this.what.bounds ? padded(this.what.bounds) : roundRange(...extentWithin(columns, steps));
    const layout = {
      hovermode: false,
      xaxis: { range: steps, title: axisTitle("step", view.theme), tickformat: "~s" },
      yaxis: { range, ...(this.what.bounds ? { tickvals: [0, 0.25, 0.5, 0.75, 1] } : {}) },
    };
    const readout = (step: number) => readers.map((read) => read(step));
    return {
      traces,
      layout,
      legend,
      points,
      last,
      overSteps: true,
      readout,
      attributes: { "data-runs": legend.length },
    };
  }

  private curves({ store }: OverlayRun, { colour, dash }: Style, view: View) {
    const training = trainingOf(store, this.what);
    const held = heldOutOf(store, this.what);
    if (!training && !held) return null;
    const traces: Record<string, unknown>[] = [];
    const columns: Points[] = [];
    let last: number | undefined;
    if (training) {
      const y = smooth(training, view.halfLife, changesOf(store));
      const line = held ? { color: colour, width: 1.2 } : { color: colour, width: 2, dash };
      traces.push({
        ...{ type: "scatter", mode: "lines", x: training.steps, y, line, opacity: held ? 0.42 : 1 },
        ...alone(training.length, colour),
      });
      columns.push({ x: training.steps, y });
      last = training.mean.at(-1);
    }
    if (held) {
      traces.push({
        ...{ type: "scatter", mode: held.steps.length > MARKED ? "lines" : "lines+markers" },
        ...{ x: held.steps, y: held.values },
        line: { color: colour, width: 2, dash },
        marker: { color: colour, size: 4.5 },
      });
      columns.push({ x: held.steps, y: held.values });
      last = held.values.at(-1);
    }
    const at = (step: number) => {
      if (!held) return valueAt(training ?? undefined, step, false, undefined);
      const after = held.steps.findIndex((measured) => measured > step);
      return held.values[(after < 0 ? held.steps.length : after) - 1];
    };
    return { traces, columns, last, at, points: (training?.points ?? 0) + (held?.steps.length ?? 0) };
  }
}
