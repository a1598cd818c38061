// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { KERNEL_BUSY } from "../src/requests";
import type { RunRow } from "../src/run_messages";
import { openRunTable } from "../src/run_table";
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

const row = (name: string): RunRow => ({
  ...{ name, title: name, recipe: "", losses: [], status: "finished", steps: 1, steps_total: 2, changed: 0 },
  ...{ before: {}, final: {}, main: "", curve: [], note: "", problem: "" },
});
const ofFolder = (name: string) => ({
  ...{
    name,
    snapshot: snapshotOf({ nll: [2, 1] }, { status: "finished" }, { epoch: name, charts: [metricChart("nll")] }),
  },
});

function scene(names: string[] = ["a", "b"], more = 0, traits: Record<string, unknown> = {}) {
  const kernel = new FakeKernel({ listing: { folder: "my\nruns", rows: names.map(row), more }, ...traits });
  const widget = openRunTable(kernel);
  const el = document.createElement("div");
  document.body.append(el);
  const dispose = widget.render(el);
  const find = (selector: string) => el.querySelector(selector) as HTMLElement;
  const line = () => [find(".ml-table-line").textContent, find(".ml-table-line").dataset.kind];
  const card = (label: string) => find(`section[aria-label="${label}"]`);
  const press = (label: string) =>
    [...el.querySelectorAll("button")].find(({ textContent }) => textContent === label)?.click();
  const sent = () => kernel.asked.map(({ request: _, ...others }) => others);
  return { kernel, widget, el, dispose, find, line, card, press, sent };
}

describe("a table of runs", () => {
  it.each([
    [["a", "b"], 0, "2 runs", "Tick runs to show them in the same charts."],
    [["a"], 0, "1 run", "Tick runs to show them in the same charts."],
    [["a"], 3, "4 runs, the newest 1 shown", "Tick runs to show them in the same charts."],
    [[], 0, "0 runs", "No run is recorded here yet."],
  ])("of runs %j and %d more says: %s", (names, more, count, line) => {
    const one = scene(names, more);
    expect([one.find(".ml-title").textContent, one.find(".ml-table-bar .ml-quiet").textContent]).toEqual([
      "my↵runs",
      count,
    ]);
    expect(one.line()).toEqual([line, "quiet"]);
    one.dispose();
  });

  it("has bar, line, rows and charts, in this order", () => {
    const { el, dispose, find } = scene();
    expect(
      [...(el.firstElementChild?.children ?? [])].map(({ localName, className }) => className || localName),
    ).toEqual([...["style", "ml-table-bar", "ml-line ml-table-line", "ml-table-room", "ml-table-charts"]]);
    expect(find(".ml-table-line").getAttribute("aria-live")).toBe("polite");
    dispose();
  });

  it("is read again on request, and follows the folder", () => {
    const { press, sent, kernel, find, dispose } = scene();
    press("Refresh");
    expect(sent()).toEqual([{ type: "list" }]);
    kernel.set("listing", { folder: "x", rows: [row("c")], more: 0 });
    expect([find(".ml-title").textContent, find("tr[data-run]").dataset.run]).toEqual(["x", "c"]);
    dispose();
  });

  it("shows a refusal, and before it a late answer", async () => {
    const { press, kernel, line, dispose } = scene();
    press("Refresh");
    kernel.reply("the folder is gone");
    await vi.advanceTimersByTimeAsync(0);
    expect(line()).toEqual(["the folder is gone", "warning"]);
    press("Refresh");
    await vi.advanceTimersByTimeAsync(1500);
    expect(line()).toEqual([KERNEL_BUSY, "warning"]);
    kernel.reply("");
    await vi.advanceTimersByTimeAsync(0);
    expect(line()[1]).toBe("quiet");
    dispose();
  });
});

describe("the charts of a table", () => {
  const labels = (card: HTMLElement) =>
    [...card.querySelectorAll(".ml-key-label")].map(({ textContent }) => textContent);

  it("show the ticked runs together, and hide one", () => {
    const { card, kernel, find, dispose } = scene();
    expect([card("Ticked runs").hidden, card("Open run").hidden]).toEqual([true, true]);
    kernel.set("shown", [ofFolder("a"), ofFolder("b")]);
    vi.advanceTimersToNextFrame();
    expect([card("Ticked runs").hidden, labels(card("Ticked runs"))]).toEqual([false, ["a", "b"]]);
    find(".ml-run[data-run='a']").click();
    vi.advanceTimersToNextFrame();
    expect([labels(card("Ticked runs")), find(".ml-run[data-run='a']").getAttribute("aria-pressed")]).toEqual([
      ["b"],
      "false",
    ]);
    kernel.set("shown", []);
    expect(card("Ticked runs").hidden).toBe(true);
    dispose();
  });

  it("show the open run with all of its charts, until another is opened or it is closed", () => {
    const { card, kernel, dispose } = scene();
    const open = card("Open run");
    kernel.set("opened", ofFolder("a\n"));
    vi.advanceTimersToNextFrame();
    expect([open.hidden, open.querySelector("bdi")?.textContent, labels(open)]).toEqual([
      ...[false, "a↵", ["training", "held-out"]],
    ]);
    const grid = open.querySelector(".ml-charts");
    kernel.set("listing", { folder: "x", rows: [], more: 0 });
    expect(open.querySelector(".ml-charts")).toBe(grid);
    kernel.set("opened", ofFolder("b"));
    expect([open.querySelectorAll(".ml-charts").length, open.querySelector("bdi")?.textContent]).toEqual([1, "b"]);
    expect(open.querySelector(".ml-charts")).not.toBe(grid);
    kernel.set("opened", null);
    expect([open.hidden, open.querySelectorAll(".ml-charts").length]).toEqual([true, 0]);
    dispose();
  });

  it("are redrawn when the theme changes, and leave nothing behind", async () => {
    const { el, find, kernel, dispose, widget, press, sent } = scene(["a"], 0, {
      shown: [ofFolder("a")],
      opened: ofFolder("a"),
    });
    const strokes = () =>
      ["tr[data-run] line", ".ml-run line"].map((selector) => find(selector).getAttribute("stroke"));
    const light = strokes();
    el.style.background = "rgb(0, 0, 0)";
    for (const listener of media.listeners) listener();
    await vi.advanceTimersByTimeAsync(10);
    strokes().forEach((stroke, i) => {
      expect(stroke).not.toBe(light[i]);
    });
    dispose();
    press("Refresh");
    expect([sent(), el.children.length, media.listeners.size, ResizeObserverStub.active.size]).toEqual([[], 0, 0, 0]);
    widget.dispose();
    expect(kernel.handlers.size).toBe(0);
  });
});
