// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import type { State } from "../../src/messages";
import type { LabelledRun } from "../../src/multi_run_store";
import { OverlayLegend } from "../../src/overlay/overlay_legend";
import { runStyle } from "../../src/overlay/run_style";
import { snapshotOf, storeOf, THEME } from "../support";

const FAILURE = { step: 2, message: "", line: null, index: null, traceback: "", loss: null, reward: null };

const run = (label: string, state: Partial<State> = {}): LabelledRun => ({
  ...{ label, store: storeOf(snapshotOf({}, state)), result: null },
});

function scene(runs: LabelledRun[]) {
  const shown = { runs, theme: THEME };
  const view = { smoothing: 1, more: false, hidden: new Set<string>() };
  const onChange = vi.fn();
  const legend = new OverlayLegend(
    () => shown.runs,
    view,
    () => shown.theme,
    onChange,
  );
  legend.draw();
  const buttons = () => [...legend.element.querySelectorAll("button")];
  const stroke = (index: number) => buttons()[index]?.querySelector("line")?.getAttribute("stroke");
  return { legend, view, onChange, buttons, stroke, shown };
}

describe("OverlayLegend", () => {
  it("has a button for each run: its line, label, and progress", () => {
    const { buttons, stroke, legend } = scene([
      run("<b>a</b>", { steps_done: 1200, steps_total: 5000, loss_label: "dpo <i>" }),
      run("b", { steps_done: 2, status: "paused", failure: FAILURE }),
    ]);
    expect(buttons().map(({ textContent }) => textContent)).toEqual(["<b>a</b>1,200 / 5,000", "b2 / 100 failed"]);
    expect([stroke(0), stroke(1)]).toEqual([runStyle(0, false).colour, runStyle(1, false).colour]);
    expect(buttons().map(({ dataset }) => ({ ...dataset }))).toMatchObject([
      { run: "<b>a</b>", status: "running", steps: "1200" },
      { run: "b", status: "failed", steps: "2" },
    ]);
    expect(buttons()[0]?.querySelector("bdi")?.title).toBe("<b>a</b>: dpo <i>");
    expect([legend.element.getAttribute("role"), legend.element.getAttribute("aria-label")]).toEqual(["group", "Runs"]);
  });

  it("hides a run by its label and shows it again, and reports each change once", () => {
    const { legend, buttons, view, onChange } = scene([run("a"), run("b")]);
    const state = () => buttons().map((button) => [button.getAttribute("aria-pressed"), button.title]);
    expect(state()[1]).toEqual(["true", "Hide this run in all charts"]);
    buttons()[1]?.click();
    expect([[...view.hidden], onChange.mock.calls.length]).toEqual([["b"], 1]);
    legend.draw();
    expect(state()).toEqual([
      ["true", "Hide this run in all charts"],
      ["false", "Show this run again"],
    ]);
    buttons()[1]?.click();
    expect([[...view.hidden], onChange.mock.calls.length]).toEqual([[], 2]);
  });

  it("follows the runs: another label at a place, more runs, fewer runs", () => {
    const { legend, buttons, shown, view } = scene([run("a"), run("b")]);
    const [first] = buttons();
    shown.runs = [run("c"), run("b"), run("d")];
    legend.draw();
    expect(buttons().map((button) => button.querySelector("bdi")?.textContent)).toEqual(["c", "b", "d"]);
    expect(buttons()[0]).toBe(first);
    first?.click();
    expect([...view.hidden]).toEqual(["c"]);
    const removed = buttons().slice(1);
    shown.runs = [run("c")];
    legend.draw();
    expect(buttons()).toEqual([first]);
    for (const button of removed) button.click();
    expect([...view.hidden]).toEqual(["c"]);
  });

  it("a button that has gone with its run does nothing, also once there are as many runs again", () => {
    const { legend, buttons, view, onChange, shown } = scene([run("a"), run("b")]);
    const gone = buttons()[1];
    shown.runs = [run("a")];
    legend.draw();
    shown.runs = [run("a"), run("c")];
    legend.draw();
    gone?.click();
    expect([view.hidden.size, onChange.mock.calls.length]).toEqual([0, 0]);
    buttons()[1]?.click();
    expect([...view.hidden]).toEqual(["c"]);
  });

  it("replaces the line only if label, loss or colours changed", () => {
    const { legend, buttons, stroke, shown } = scene([run("a")]);
    const sample = () => buttons()[0]?.querySelector("svg");
    const before = sample();
    Object.assign(shown.runs[0]?.store.state ?? {}, { steps_done: 7 });
    legend.draw();
    expect([sample(), buttons()[0]?.textContent]).toEqual([before, "a7 / 100"]);
    Object.assign(shown.runs[0]?.store.state ?? {}, { loss_label: "hinge" });
    legend.draw();
    expect([sample() === before, buttons()[0]?.querySelector("bdi")?.title]).toEqual([false, "a: hinge"]);
    shown.theme = { ...THEME, dark: true };
    legend.draw();
    expect(stroke(0)).toBe(runStyle(0, true).colour);
  });

  it("has no progress of a run without a state", () => {
    const store = storeOf(snapshotOf({}));
    store.state = null;
    const { buttons } = scene([{ label: "a", store, result: null }]);
    expect([buttons()[0]?.textContent, buttons()[0]?.dataset.status, buttons()[0]?.dataset.steps]).toEqual([
      ...["a0 / 0", "", "0"],
    ]);
  });

  it("is silent after dispose", () => {
    const { legend, buttons, onChange, view } = scene([run("a")]);
    document.body.append(legend.element);
    legend.dispose();
    buttons()[0]?.click();
    expect([onChange.mock.calls, [...view.hidden], legend.element.isConnected]).toEqual([[], [], false]);
  });
});
