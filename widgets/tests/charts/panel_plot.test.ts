// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { axisTitle, type Drawing, Panel } from "../../src/charts/panel";
import Plotly from "../../src/lib/plotly";
import { ResizeObserverStub } from "../page_stubs";
import { metricChart, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

/** An axis from step 0 to 200 on 400 pixels that start 50 pixels from the left. */
const AXIS = {
  ...{ _offset: 50, _length: 400, range: [0, 200] as [number, number] },
  ...{ d2p: (step: number) => 2 * step, p2d: (pixel: number) => pixel / 2 },
};

class PlotPanel extends Panel {
  change: Partial<Drawing> = {};
  override drawing(): Drawing {
    const legend = [{ label: "training", colour: "red", value: "3" }];
    return {
      ...{ traces: [{ type: "scatter" }], layout: { xaxis: { range: [0, 200] }, yaxis: { type: "log" }, shapes: [1] } },
      ...{ legend, points: 7, last: 3, isOverSteps: true, readout: () => legend, ...this.change },
    };
  }
}

let sizes: { width: number; height: number };

beforeEach(() => {
  sizes = { width: 500, height: 300 };
  vi.spyOn(HTMLElement.prototype, "clientWidth", "get").mockImplementation(() => sizes.width);
  vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockImplementation(() => sizes.height);
  vi.mocked(Plotly.react).mockReset();
  vi.mocked(Plotly.purge).mockReset();
});
afterEach(() => {
  vi.restoreAllMocks();
});

function scene(change: Partial<Drawing> = {}) {
  const handlers: Record<string, (change: Record<string, unknown>) => void> = {};
  vi.mocked(Plotly.react).mockImplementation(((element: object) => {
    Object.assign(element, {
      _fullLayout: { xaxis: AXIS },
      on: (event: string, handler: () => void) => {
        if (event in handlers) throw new Error(`${event} has two handlers`);
        handlers[event] = handler;
      },
    });
  }) as never);
  let cursor: number | null = null;
  const events = {
    ...{ onResize: vi.fn(), onViewChange: vi.fn(), onZoom: vi.fn(), onEnlarge: vi.fn(), onStep: vi.fn() },
    onPoint: vi.fn((step: number | null) => {
      cursor = step;
    }),
    cursor: () => cursor,
  };
  const panel = new PlotPanel(metricChart("loss", { unit: "nats" }));
  panel.change = change;
  panel.attach(events);
  const store = storeOf(snapshotOf({}, { marks: [{ step: 1, kind: "loss", label: "x" }] }));
  const plot = panel.element.querySelector(".ml-plot") as HTMLElement;
  const line = panel.element.querySelector(".ml-cursor") as HTMLElement;
  const key = (name: string) => {
    const event = new KeyboardEvent("keydown", { key: name, cancelable: true });
    plot.dispatchEvent(event);
    return event.defaultPrevented;
  };
  const move = (clientX: number) => plot.dispatchEvent(new MouseEvent("pointermove", { clientX }));
  return { panel, events, store, plot, line, handlers, key, move, draw: () => panel.draw(viewOf(store)) };
}

describe("the plot of a panel", () => {
  it("is as large as its place, and has the page's colours and the chart's own axes", () => {
    const { draw, plot, store } = scene();
    store.view.range = [5, 9];
    draw();
    const axis = {
      ...{ gridcolor: THEME.grid, linecolor: THEME.grid, tickcolor: THEME.grid, zeroline: false, automargin: false },
      ...{ tickfont: { size: 11, color: THEME.muted }, nticks: 5 },
    };
    expect(vi.mocked(Plotly.react).mock.calls).toEqual([
      [
        plot,
        [{ type: "scatter" }],
        {
          ...{ paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false, dragmode: "zoom" },
          font: { family: THEME.font, size: 11, color: THEME.muted },
          ...{ margin: { l: 46, r: 16, t: 14, b: 36 }, uirevision: "5,9", width: 500, height: 300, shapes: [1] },
          hoverlabel: {
            ...{ bgcolor: THEME.surface, bordercolor: THEME.grid },
            font: { family: THEME.font, size: 12, color: THEME.text },
          },
          xaxis: { ...axis, showgrid: false, showline: true, ticks: "outside", ticklen: 4, range: [0, 200] },
          yaxis: { ...axis, fixedrange: true, tickformat: "~g", type: "log" },
        },
        { displayModeBar: false, showTips: false, doubleClick: false },
      ],
    ]);
  });

  it("has a second vertical axis only if the chart has one", () => {
    const { draw } = scene({ layout: { xaxis: {}, yaxis: {}, yaxis2: { domain: [0, 0.4] } } });
    draw();
    expect(vi.mocked(Plotly.react).mock.calls[0]?.[2]).toMatchObject({
      yaxis2: { domain: [0, 0.4], fixedrange: true, tickformat: "~g", gridcolor: THEME.grid },
    });
  });

  it("is not drawn before it has a width, and a change of the width by a pixel is reported", () => {
    const { draw, plot, events } = scene();
    sizes.width = 0;
    draw();
    expect(Plotly.react).not.toHaveBeenCalled();
    ResizeObserverStub.resize(plot);
    expect(events.onResize).not.toHaveBeenCalled();
    sizes.width = 500;
    ResizeObserverStub.resize(plot);
    expect(events.onResize).toHaveBeenCalledTimes(1);
    draw();
    ResizeObserverStub.resize(plot);
    sizes.width = 500.5;
    ResizeObserverStub.resize(plot);
    expect(events.onResize).toHaveBeenCalledTimes(1);
    sizes.width = 499;
    ResizeObserverStub.resize(plot);
    expect(events.onResize).toHaveBeenCalledTimes(2);
  });

  it("is purged with its panel, which then observes and reports nothing", () => {
    const { draw, panel, plot, events, move, key } = scene();
    document.body.append(panel.element);
    draw();
    panel.dispose();
    expect(vi.mocked(Plotly.purge).mock.calls).toEqual([[plot]]);
    expect(panel.element.isConnected).toBe(false);
    move(100);
    key("Escape");
    panel.element.querySelector<HTMLButtonElement>(".ml-enlarge")?.click();
    sizes.width = 100;
    ResizeObserverStub.resize(plot);
    expect([events.onPoint, events.onEnlarge, events.onResize].map(({ mock }) => mock.calls)).toEqual([[], [], []]);
    sizes.width = 0;
    const undrawn = scene();
    undrawn.draw();
    undrawn.panel.dispose();
    expect(Plotly.purge).toHaveBeenCalledTimes(1);
  });
});

describe("the cursor of a panel", () => {
  it("is the step under the pointer, on the axis only", () => {
    const { draw, move, events, plot } = scene();
    move(100);
    expect(events.onPoint.mock.lastCall).toEqual([null]); // not drawn yet
    draw();
    const steps = [49, 50, 53, 450, 451].map((clientX) => {
      move(clientX);
      return events.onPoint.mock.lastCall?.[0];
    });
    expect(steps).toEqual([null, 0, 2, 200, null]);
    plot.dispatchEvent(new Event("pointerleave"));
    expect(events.onPoint.mock.lastCall).toEqual([null]);
    move(53);
    plot.dispatchEvent(new Event("blur"));
    expect(events.onPoint.mock.lastCall).toEqual([null]);
  });

  it("is never before step 0, and counts from the left of the plot", () => {
    const { draw, move, events, plot } = scene();
    draw();
    vi.spyOn(plot, "getBoundingClientRect").mockReturnValue({ left: 30 } as DOMRect);
    move(90);
    expect(events.onPoint.mock.lastCall).toEqual([5]);
    vi.spyOn(AXIS, "p2d").mockReturnValue(-3);
    move(90);
    expect(events.onPoint.mock.lastCall).toEqual([0]);
  });

  it("moves with the arrow keys by a hundredth of the axis, and stays on it", () => {
    const { draw, key, events } = scene();
    expect(key("ArrowLeft")).toBe(false); // not drawn yet
    draw();
    const steps = (...keys: string[]) =>
      keys.map((name) => {
        expect(key(name)).toBe(true);
        return events.onPoint.mock.lastCall?.[0];
      });
    expect(steps("ArrowLeft", "ArrowLeft", "ArrowRight", "PageUp", "PageDown", "PageDown")).toEqual([
      ...[198, 196, 198, 178, 198, 200],
    ]);
    for (let i = 0; i < 12; i++) key("PageUp");
    expect(events.onPoint.mock.lastCall).toEqual([0]);
    expect(key("Escape")).toBe(false);
    expect(events.onPoint.mock.lastCall).toEqual([null]);
    const calls = events.onPoint.mock.calls.length;
    expect(key("Enter")).toBe(false);
    expect(events.onPoint).toHaveBeenCalledTimes(calls);
  });

  it("moves by one step on a short axis", () => {
    const { draw, key, events } = scene();
    draw();
    const { range } = AXIS;
    AXIS.range = [0.4, 20.4];
    key("ArrowLeft");
    expect(events.onPoint.mock.lastCall).toEqual([19]);
    AXIS.range = range;
  });

  it("is a line at its step, if that is on the axis", () => {
    const { draw, panel, line } = scene();
    expect(line.hidden).toBe(true);
    draw();
    expect(line.hidden).toBe(true);
    const places = [0, 100, 200, 201, -1].map((step) => {
      panel.point(step);
      return line.hidden ? null : line.style.transform;
    });
    expect(places).toEqual(["translateX(50px)", "translateX(250px)", "translateX(450px)", null, null]);
    panel.point(100);
    panel.point(null);
    expect(line.hidden).toBe(true);
  });

  it("does not exist in a chart that is not over steps", () => {
    const { draw, panel, line, move, key, events } = scene({ isOverSteps: false });
    draw();
    move(100);
    expect(events.onPoint.mock.lastCall).toEqual([null]);
    expect(key("ArrowLeft")).toBe(false);
    panel.point(5);
    expect(line.hidden).toBe(true);
  });

  it("is drawn with the chart", () => {
    const { panel, store, line } = scene();
    panel.draw(viewOf(store, { cursor: 1234 }));
    expect(line.hidden).toBe(true);
    expect(panel.element.querySelector(".ml-unit")?.textContent).toBe("step 1,234");
    panel.draw(viewOf(store, { cursor: 10 }));
    expect([line.hidden, line.style.transform]).toEqual([false, "translateX(70px)"]);
  });
});

describe("zooming", () => {
  it("reports the range that a person drew, and its end", () => {
    const { draw, handlers, events } = scene();
    draw();
    draw(); // does not listen twice
    handlers.plotly_relayout?.({ "xaxis.range[0]": 3, "xaxis.range[1]": 8 });
    expect(events.onZoom.mock.calls).toEqual([[[3, 8]]]);
    handlers.plotly_relayout?.({ "xaxis.range[0]": 3 });
    handlers.plotly_relayout?.({ "xaxis.range[1]": 3 });
    handlers.plotly_relayout?.({ width: 3 });
    expect(events.onZoom).toHaveBeenCalledTimes(1);
    handlers.plotly_doubleclick?.({});
    expect(events.onZoom.mock.lastCall).toEqual([null]);
  });

  it("is for charts over steps only", () => {
    const { draw, handlers, events } = scene({ isOverSteps: false });
    draw();
    handlers.plotly_relayout?.({ "xaxis.range[0]": 3, "xaxis.range[1]": 8 });
    expect(events.onZoom).not.toHaveBeenCalled();
  });
});

describe("the caption of a panel", () => {
  it("describes the figure", () => {
    const { panel, draw, plot } = scene();
    const { element } = panel;
    expect([element.localName, element.className, element.getAttribute("role")]).toEqual([
      "figure",
      "ml-chart",
      "group",
    ]);
    expect(element.dataset).toMatchObject({ name: "loss", points: "0", kind: "lines" });
    expect([plot.tabIndex, plot.dataset.lmSuppressShortcuts]).toEqual([0, "true"]);
    draw();
    expect(element.dataset).toMatchObject({ points: "7", last: "3", marks: "1" });
    expect([plot.getAttribute("role"), plot.getAttribute("aria-label")]).toEqual(["img", "loss: training 3"]);
    expect(panel.followsDrafts).toBe(false);
  });

  it("has the drawing's own words for a screen reader", () => {
    const { panel, draw } = scene({ text: "nothing yet", last: undefined });
    draw();
    expect(panel.element.getAttribute("aria-label")).toBe("loss: nothing yet");
    expect(panel.element.dataset.last).toBeUndefined();
  });

  it("keeps the latest numbers if the chart has none for a step", () => {
    const { panel, draw } = scene();
    panel.change = { readout: undefined as never };
    draw();
    panel.point(4);
    expect(panel.element.querySelector(".ml-unit")?.textContent).toBe("nats");
    expect(panel.element.getAttribute("aria-label")).toBe("loss: training 3");
  });

  it("says whether the chart is enlarged", () => {
    const { panel, store, draw } = scene();
    const button = panel.element.querySelector(".ml-enlarge") as HTMLElement;
    const state = () => [
      ...[button.title, button.getAttribute("aria-label"), button.getAttribute("aria-pressed")],
      panel.element.dataset.large,
    ];
    draw();
    expect(state()).toEqual(["Enlarge", "Enlarge", "false", undefined]);
    store.view.large = "loss";
    draw();
    expect(state()).toEqual(["As small as the others", "As small as the others", "true", ""]);
  });

  it("has a switch only if the drawing has one", () => {
    const flip = vi.fn();
    const { panel, draw, events } = scene({ toggle: { label: "log", title: "Logarithmic", isOn: true, flip } });
    const button = panel.element.querySelector(".ml-toggle:not(.ml-enlarge)") as HTMLButtonElement;
    expect(button.hidden).toBe(true);
    draw();
    expect([button.hidden, button.textContent, button.title, button.getAttribute("aria-pressed")]).toEqual([
      ...[false, "log", "Logarithmic", "true"],
    ]);
    button.click();
    expect([flip.mock.calls.length, events.onViewChange.mock.calls.length]).toEqual([1, 1]);
    panel.change = { toggle: null };
    draw();
    expect(button.hidden).toBe(true);
  });

  it("hides and shows a curve by its key", () => {
    const { panel, draw, store, events } = scene({
      legend: [{ label: "a", colour: "red", value: "1", key: "loss/a" }],
    });
    draw();
    const button = panel.element.querySelector(".ml-key") as HTMLButtonElement;
    button.click();
    expect([...store.view.hidden]).toEqual(["loss/a"]);
    button.click();
    expect([[...store.view.hidden], events.onViewChange.mock.calls.length]).toEqual([[], 2]);
    panel.dispose();
    button.click();
    expect(events.onViewChange).toHaveBeenCalledTimes(2);
  });
});

describe("axisTitle", () => {
  it("is muted and stands close to the axis", () => {
    expect(axisTitle("step", THEME)).toEqual({ text: "step", standoff: 4, font: { size: 11, color: THEME.muted } });
  });
});

describe("a step that a person chooses", () => {
  const press = (plot: HTMLElement, from: number, to = from, button = 0) => {
    plot.dispatchEvent(new MouseEvent("pointerdown", { clientX: from, clientY: 7, button }));
    window.dispatchEvent(new MouseEvent("pointerup", { clientX: to, clientY: 7 }));
  };

  it("is the one that was clicked", () => {
    const { events, plot, draw } = scene();
    draw();
    press(plot, 130, 133); // step 40 is 80 pixels into the axis, which starts at 50
    expect(events.onStep.mock.calls).toEqual([[{ step: 40, x: 130, y: 7, from: plot }]]);
  });

  it("is none while a person drags, outside the axis, with another button, and in a chart that is not over steps", () => {
    const { events, plot, draw, panel } = scene();
    draw();
    press(plot, 130, 160);
    press(plot, 20);
    press(plot, 130, 130, 2);
    panel.change = { isOverSteps: false };
    draw();
    press(plot, 130);
    expect(events.onStep).not.toHaveBeenCalled();
  });

  it("is the one at the cursor when a person presses Enter", () => {
    const { events, plot, draw, key } = scene();
    draw();
    expect([key("Enter"), events.onStep.mock.calls.length]).toEqual([false, 0]);
    key("ArrowLeft");
    expect(key("Enter")).toBe(true);
    // One of the 200 steps to the left of the end of the axis, which is at 50 + 2 × 200 pixels.
    expect(events.onStep.mock.calls).toMatchObject([[{ step: 198, x: 446, from: plot }]]);
  });
});
