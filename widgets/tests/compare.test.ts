// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openCompare } from "../src/compare";
import { RUN, type RunDetail } from "../src/lib/events";
import type { State } from "../src/messages";
import { KERNEL_BUSY } from "../src/requests";
import { media, ResizeObserverStub } from "./page_stubs";
import { FakeKernel, metricChart, snapshotOf } from "./support";

vi.mock("../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

const RESULT = { step: 2, before: { nll: 3 }, final: { nll: 1 } };
const FAILURE = { step: 7, message: "it <b> broke", line: 1, index: null, traceback: "", loss: null, reward: null };

function scene(states: Partial<State>[], seen: number[][] = states.map(() => [2, 1])) {
  const runs = states.map((state, i) => ({
    ...{ label: `run ${i}`, result: RESULT },
    snapshot: snapshotOf(seen[i]?.length ? { nll: seen[i] } : {}, state, {
      epoch: String(i),
      charts: [metricChart("nll")],
    }),
  }));
  const kernel = new FakeKernel({ compared: { recipe: "", batch_before_training: true, runs }, cosines: null });
  const widget = openCompare(kernel);
  const view = () => {
    const el = document.createElement("div");
    document.body.append(el);
    const dispose = widget.render(el);
    const find = (selector: string) => el.querySelector(selector) as HTMLElement;
    const notice = () => [find(".ml-line").textContent, find(".ml-line").dataset.kind];
    const press = (label: string) =>
      [...el.querySelectorAll("button")].find(({ textContent }) => textContent === label)?.click();
    return { el, dispose, find, notice, press };
  };
  const sent = () => kernel.asked.filter(({ type }) => type !== "sync").map(({ request: _, ...others }) => others);
  return { kernel, widget, view, sent };
}

const SETUP = "Same base model, seed and batches; only the loss differs.";

describe("a comparison", () => {
  it("announces each of its runs, which can be stopped by itself", () => {
    const details: RunDetail[] = [];
    const listener = (event: CustomEvent<RunDetail>) => details.push(event.detail);
    window.addEventListener(RUN, listener);
    const { view, widget, sent } = scene([{ status: "running" }, { status: "running" }]);
    const { el, dispose } = view();
    const last = (epoch: string) => details.filter((detail) => detail.epoch === epoch).at(-1);
    expect([last("0")?.status, last("1")?.status, last("1")?.element]).toEqual(["running", "running", el]);
    void last("1")?.stop();
    expect(sent()).toEqual([{ type: "stop", run: 1 }]);
    dispose();
    widget.dispose();
    expect([last("0")?.status, last("1")?.status]).toEqual(["gone", "gone"]);
    window.removeEventListener(RUN, listener);
  });

  it("has buttons, notice, legend, charts, results and cosines, in this order", () => {
    const { view } = scene([{}, {}]);
    const { el, find, dispose } = view();
    expect(
      [...(el.firstElementChild?.children ?? [])].map(({ localName, className }) => className || localName),
    ).toEqual([...["style", "ml-bar", "ml-line", "ml-runs", "ml-charts ml-overlay", "ml-below"]]);
    expect([...find(".ml-below").children].map(({ className }) => className)).toEqual([
      ...["ml-card ml-results-card", "ml-card ml-cosines-card"],
    ]);
    expect(find("tbody").textContent).toBe("run 023.000 → 1.000run 123.000 → 1.000");
    expect([...el.querySelectorAll<HTMLElement>(".ml-run")].map(({ dataset }) => dataset.run)).toEqual([
      "run 0",
      "run 1",
    ]);
    dispose();
  });

  it("sends requests for all runs, and for the cosines", () => {
    const { view, sent, kernel } = scene([{ status: "ready" }], [[]]);
    const { press, dispose } = view();
    press("Start");
    kernel.reply("");
    press("Measure");
    expect(sent()).toEqual([{ type: "start" }, { type: "cosines", at: null }]);
    dispose();
  });

  it("follows the measured cosines", () => {
    const { view, kernel } = scene([{}]);
    const { find, dispose } = view();
    kernel.set("cosines", {
      labels: ["a"],
      values: [[1]],
      norms: [2],
      at: null,
      step: 0,
      datums: 3,
      busy: false,
      problem: "",
    });
    expect(find(".ml-cosines tbody").textContent).toBe("a1.0002.000");
    dispose();
  });

  it("hides a run in every view, in the next frame", () => {
    const { view } = scene([{ status: "paused" }, { status: "paused" }]);
    const [one, other] = [view(), view()];
    vi.advanceTimersToNextFrame();
    const legend = ({ el }: { el: HTMLElement }) =>
      [...el.querySelectorAll(".ml-key-label")].map(({ textContent }) => textContent);
    expect(legend(one)).toEqual(["run 0", "run 1"]);
    one.find("[data-run='run 0']").click();
    expect(other.find("[data-run='run 0']").getAttribute("aria-pressed")).toBe("false");
    vi.advanceTimersToNextFrame();
    expect([legend(one), legend(other)]).toEqual([["run 1"], ["run 1"]]);
    one.dispose();
    other.dispose();
  });

  it("keeps the chosen weights for other views", () => {
    const { view } = scene([{}, {}]);
    const one = view();
    const select = one.find(".ml-cosines-tools select") as HTMLSelectElement;
    select.value = "1";
    select.dispatchEvent(new Event("change"));
    const other = view();
    expect((other.find(".ml-cosines-tools select") as HTMLSelectElement).value).toBe("1");
    one.dispose();
    other.dispose();
  });

  it("is redrawn when the theme changes, and silent after dispose", async () => {
    const { view, kernel, widget } = scene([{}]);
    const { el, find, dispose } = view();
    const stroke = () => find(".ml-run line")?.getAttribute("stroke");
    const light = stroke();
    el.style.background = "rgb(0, 0, 0)";
    for (const listener of media.listeners) listener();
    await vi.advanceTimersByTimeAsync(10);
    expect(stroke()).not.toBe(light);
    dispose();
    expect([el.children.length, media.listeners.size, ResizeObserverStub.active.size]).toEqual([0, 0, 0]);
    widget.dispose();
    expect(kernel.handlers.size).toBe(0);
  });
});

describe("the notice of a comparison", () => {
  const noticeOf = (states: Partial<State>[], seen?: number[][]) => {
    const { view } = scene(states, seen);
    const { notice, dispose } = view();
    const shown = notice();
    dispose();
    return shown;
  };

  it("says what is compared", () => {
    expect(noticeOf([{ status: "running" }])).toEqual([SETUP, "quiet"]);
    expect(noticeOf([{ status: "paused" }, { status: "paused", data: "40 <pairs>" }])).toEqual([
      ...["Same base model, seed and batches (40 <pairs>); only the loss differs.", "quiet"],
    ]);
    expect(noticeOf([{ status: "ready" }], [[]])).toEqual([`${SETUP} No step is complete yet.`, "quiet"]);
  });

  it("says that the model is being loaded, until a run has a record", () => {
    expect(noticeOf([{}, {}], [[], []])).toEqual(["Loading the model and the data…", "quiet"]);
    expect(noticeOf([{}, {}], [[], [1]])).toEqual([SETUP, "quiet"]);
    expect(noticeOf([{ status: "paused" }], [[]])).toEqual([SETUP, "quiet"]);
  });

  it("names the first failed run", () => {
    expect(noticeOf([{}, { failure: FAILURE }, { failure: { ...FAILURE, step: 9 } }])).toEqual([
      ...["run 1, step 7: it <b> broke", "warning"],
    ]);
  });

  it("prefers a problem of the page to a late answer, that to a refusal, and that to a failure", async () => {
    const { view, kernel } = scene([{ failure: FAILURE, status: "paused" }]);
    const { notice, press, find, dispose } = view();
    expect(notice()[1]).toBe("warning");
    press("Stop");
    kernel.reply("it is over");
    await vi.advanceTimersByTimeAsync(0);
    expect([notice(), find(".ml-line").title]).toEqual([["it is over", "warning"], "it is over"]);
    press("Stop");
    await vi.advanceTimersByTimeAsync(1500);
    expect(notice()).toEqual([KERNEL_BUSY, "warning"]);
    kernel.say({
      type: "of_run",
      run: 0,
      result: null,
      message: { ...snapshotOf({}, {}, { epoch: "x" }), protocol: 1 },
    });
    expect(notice()).toEqual([expect.stringContaining("different versions"), "warning"]);
    dispose();
  });
});
