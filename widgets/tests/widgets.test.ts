// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { RUN, type RunDetail } from "../src/lib/events";
import widget from "../src/widgets";
import { media, ResizeObserverStub } from "./page_stubs";
import { FakeKernel, lossEntry, metricChart, SNAPSHOT, STATE, settled, snapshotOf, tokensOf } from "./support";

vi.mock("../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const announced: RunDetail[] = [];
const onRun = (event: CustomEvent<RunDetail>) => announced.push(event.detail);

beforeEach(() => {
  announced.length = 0;
  window.addEventListener(RUN, onRun);
});
afterEach(() => {
  window.removeEventListener(RUN, onRun);
  document.body.replaceChildren();
});

const PARAM = { name: "beta", default: 1, low: 0, high: 2, minimum: 0, doc: "", scale: "linear" as const };
const RUN_SNAPSHOT = snapshotOf(
  { nll: [2, 1] },
  { warnings: ["careful"], controls: [PARAM], settings: { beta: 1 }, keeps_samples: true, status: "paused" },
  { charts: [metricChart("nll")], losses: [lossEntry("dpo"), lossEntry("ipo")] },
);
const RESULT = { step: 0, before: {}, final: {} };

function open(part: string, traits: Record<string, unknown> = { snapshot: RUN_SNAPSHOT }) {
  const kernel = new FakeKernel({ part, ...traits });
  const { initialize, render } = widget();
  const end = initialize({ model: kernel });
  const view = () => {
    const el = document.createElement("div");
    document.body.append(el);
    const dispose = render({ model: kernel, el }) as () => void;
    return { el, dispose, find: (selector: string) => el.querySelector(selector) as HTMLElement };
  };
  const sent = () => kernel.asked.filter(({ type }) => type !== "sync").map(({ request: _, ...others }) => others);
  return { kernel, end, view, sent };
}

const button = (el: HTMLElement, label: string) =>
  [...el.querySelectorAll("button")].find(({ textContent, hidden }) => textContent === label && !hidden);

/** What is still subscribed after everything was disposed of. */
const leftovers = (kernel: FakeKernel) => [kernel.handlers.size, media.listeners.size, ResizeObserverStub.active.size];

describe("the widgets of a run", () => {
  it.each([
    [
      "workbench",
      "Loss workbench",
      [".ml-bar", ".ml-notices", ".ml-picker", ".ml-settings", ".ml-warnings", ".ml-charts"],
    ],
    ["live_charts", "Live charts", [".ml-charts"]],
    ["loss_picker", "Loss", [".ml-picker", ".ml-settings"]],
    ["run_controls", "Run controls", [".ml-bar", ".ml-notices"]],
    ["samples_table", "Responses", [".ml-samples-panel"]],
    ["warnings", "Warnings", [".ml-warnings"]],
  ])("%s shows its parts, and leaves nothing behind", (part, label, selectors) => {
    const { view, end, kernel } = open(part);
    const { el, find, dispose } = view();
    expect(el.firstElementChild?.getAttribute("aria-label")).toBe(label);
    const all = [
      ".ml-bar",
      ".ml-notices",
      ".ml-picker",
      ".ml-settings",
      ".ml-warnings",
      ".ml-charts",
      ".ml-samples-panel",
    ];
    const expected = part === "workbench" ? all : selectors;
    expect(all.filter((selector) => find(selector))).toEqual(expected);
    dispose();
    expect(el.children).toHaveLength(0);
    end();
    expect(leftovers(kernel)).toEqual([0, 0, 0]);
  });

  it("has the tokens in the workbench, and all parts in their order", () => {
    const { view, end } = open("workbench");
    const { el, find, dispose } = view();
    expect(
      [...(el.firstElementChild?.children ?? [])].map(({ localName, className }) => className || localName),
    ).toEqual([
      ...["style", "ml-tabs", "ml-bar", "ml-notices", "ml-earlier", "div", "ml-body"],
      ...["ml-card ml-data-panel", "ml-card ml-samples-panel", "ml-card ml-tokens-panel", "ml-step-menu"],
    ]);
    expect([...find(".ml-body").children].map(({ className }) => className)).toEqual(["ml-side", "ml-charts"]);
    expect([...find(".ml-side").children].map(({ className }) => className)).toEqual([
      ...["ml-card ml-picker", "ml-card ml-settings", "ml-card ml-warnings"],
    ]);
    expect(find("aside").getAttribute("aria-label")).toBe("Loss and settings");
    dispose();
    end();
  });

  it("share one store: every view shows what one of them changed", async () => {
    const { view, end, sent, kernel } = open("workbench");
    const [one, other] = [view(), view()];
    button(one.el, "Resume")?.click();
    expect(sent()).toEqual([{ type: "resume" }]);
    kernel.reply("not now");
    await settled();
    expect([one, other].map(({ find }) => find(".ml-line").textContent?.startsWith("not now"))).toEqual([true, false]);
    one.dispose();
    kernel.say({ type: "losses", losses: [lossEntry("new")] });
    expect([...other.el.querySelectorAll("option")].map(({ value }) => value)).toContain("new");
    other.dispose();
    end();
  });

  it("shows in the workbench why a loss was refused, and no refusal once one is accepted", async () => {
    const { view, end, kernel } = open("workbench");
    const { find, dispose } = view();
    const choose = async (error: string) => {
      const select = find("select.ml-select") as HTMLSelectElement;
      select.value = "ipo";
      select.dispatchEvent(new Event("change"));
      kernel.reply(error);
      await settled();
      return find(".ml-line").dataset.kind;
    };
    expect([await choose("no"), await choose("")]).toEqual(["warning", "quiet"]);
    dispose();
    end();
  });

  it("shows below a picker of its own why a loss was refused", async () => {
    const { view, end, kernel } = open("loss_picker");
    const { find, dispose } = view();
    const select = find("select") as HTMLSelectElement;
    select.value = "ipo";
    select.dispatchEvent(new Event("change"));
    kernel.reply("<b>no</b>");
    await settled();
    expect(find(".ml-reason[role='status']").innerHTML).toBe("&lt;b&gt;no&lt;/b&gt;");
    dispose();
    end();
  });

  it("has New run in the workbench, and not in run controls of their own", async () => {
    const traits = { snapshot: { ...RUN_SNAPSHOT, state: { ...RUN_SNAPSHOT.state, status: "finished" } } };
    const labels = ["workbench", "run_controls"].map((part) => {
      const { view, end } = open(part, traits);
      const { el, dispose } = view();
      const found = button(el, "New run");
      dispose();
      end();
      return found !== undefined;
    });
    expect(labels).toEqual([true, false]);
    const { view, end, kernel } = open("run_controls");
    const { el, find, dispose } = view();
    button(el, "Step")?.click();
    kernel.reply("it is over");
    await settled();
    expect(find(".ml-line").textContent).toBe("it is over");
    dispose();
    end();
  });

  it("has a widget of warnings that says that there are none", () => {
    const { view, end } = open("warnings", { snapshot: SNAPSHOT });
    const { find, dispose } = view();
    expect([find(".ml-warnings").hidden, find("li").textContent]).toEqual([false, "Nothing so far."]);
    dispose();
    end();
  });
});

describe("the announcements of a widget", () => {
  it("name the run with a view of it, and end with the widget", () => {
    const { view, end } = open("live_charts");
    expect(announced.map(({ status, element }) => [status, element])).toEqual([["paused", null]]);
    const { el, dispose } = view();
    expect(announced.at(-1)?.element).toBe(el);
    const other = view();
    dispose();
    other.el.remove();
    const third = view();
    expect(announced.at(-1)?.element).toBe(third.el);
    end();
    expect(announced.at(-1)).toMatchObject({ status: "gone", epoch: "a" });
    other.dispose();
    third.dispose();
  });

  it("forget a view that was disposed of", () => {
    const { view, end, kernel } = open("live_charts");
    const { dispose } = view();
    dispose();
    kernel.say({
      type: "update",
      epoch: "a",
      number: 2,
      first: 2,
      count: 0,
      columns: [],
      full: true,
      histograms: [],
      state: { ...STATE, steps_done: 3 },
    });
    expect(announced.at(-1)).toMatchObject({ step: 3, element: null });
    end();
  });

  it("are not made for widgets that show no run", () => {
    const { end } = open("token_view", { tokens: tokensOf([1]), snapshot: RUN_SNAPSHOT });
    end();
    expect(announced).toEqual([]);
  });
});

describe("the other widgets", () => {
  it("show tokens without a kernel", () => {
    const { view, end, kernel } = open("token_view", { tokens: tokensOf([1, -1]) });
    const { el, dispose } = view();
    expect(el.firstElementChild?.getAttribute("aria-label")).toBe("Tokens");
    expect([...el.querySelectorAll(".ml-token")].map(({ textContent }) => textContent)).toEqual(["a", "b"]);
    expect(kernel.asked).toEqual([]);
    dispose();
    end();
    expect([el.children.length, ...leftovers(kernel)]).toEqual([0, 0, 0, 0]);
  });

  it.each([
    ["compare", "Comparison of losses", { compared: { recipe: "", batch_before_training: true, runs: [] } }],
    ["run_table", "Table of runs", { listing: { folder: "runs", rows: [], more: 0 } }],
  ])("%s shows several runs, in any number of views", (part, label, traits) => {
    const { view, end, kernel } = open(part, traits);
    const [one, other] = [view(), view()];
    expect([one, other].map(({ el }) => el.firstElementChild?.getAttribute("aria-label"))).toEqual([label, label]);
    one.dispose();
    expect([one.el.children.length, other.el.children.length]).toEqual([0, 1]);
    other.dispose();
    end();
    expect(leftovers(kernel)).toEqual([0, 0, 0]);
    expect(announced).toEqual([]);
  });

  it("say that an older page has no such widget", () => {
    const { view, end } = open("later");
    expect(view).toThrow("there is no widget later; update mint_lab and reload the page");
    end();
  });
});

describe("a widget of several runs", () => {
  it("has the runs of its trait", () => {
    const runs = [{ label: "a", result: RESULT, snapshot: RUN_SNAPSHOT }];
    const { view, end } = open("compare", { compared: { recipe: "", batch_before_training: true, runs } });
    const { find, dispose } = view();
    expect(find(".ml-run").dataset.run).toBe("a");
    dispose();
    end();
  });
});
