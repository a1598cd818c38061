// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import "../page_stubs";
import { SamplesPanel } from "../../src/controls/samples_panel";
import type { SampleRow } from "../../src/messages";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, THEME, tokensOf } from "../support";

const ROW: SampleRow = {
  ...{ source: "training", prompt: "2+2=\n", response: "<b>4</b>", reward: 1, advantage: 0.5, start: 0, length: 0 },
};

function panelOf(keepsSamples: boolean, samples: unknown = null) {
  const state = { ...STATE, keeps_samples: keepsSamples };
  const store = new RunStore(new FakeKernel({ snapshot: { ...SNAPSHOT, state }, samples }));
  return new SamplesPanel(store, () => THEME);
}

describe("SamplesPanel", () => {
  it("is shown for runs that store responses, whatever their recipe is called", () => {
    expect([panelOf(true).element.hidden, panelOf(false).element.hidden]).toEqual([false, true]);
  });

  it("shows each response as text", () => {
    const { element } = panelOf(true, { step: 20, rows: [ROW], tokens: null });
    const cells = [...element.querySelectorAll("td")].map((cell) => cell.textContent);
    expect(cells).toEqual(["training", "2+2=↵\n", "<b>4</b>", "1", "+0.5"]);
    expect(element.querySelector(".ml-samples-step")?.textContent).toContain("of step 20:");
  });
});

describe("SamplesPanel in detail", () => {
  const TOKENS = tokensOf([0.5, -1, 2], { by: "weight" });
  const SAMPLES = {
    step: 20,
    rows: [
      { ...ROW, source: "held-out" as const, advantage: -0.25, start: 0, length: 2, response: "ab" },
      { ...ROW, advantage: 0, start: 2, length: 1, response: "c" },
    ],
    tokens: TOKENS,
  };

  function scene(samples: unknown, view: object = {}) {
    const state = { ...STATE, keeps_samples: true };
    const kernel = new FakeKernel({ snapshot: { ...SNAPSHOT, state }, samples });
    const store = new RunStore(kernel);
    Object.assign(store.view, view);
    const panel = new SamplesPanel(store, () => THEME);
    document.body.replaceChildren(panel.element);
    const find = (selector: string) => panel.element.querySelector(selector) as HTMLElement;
    const cells = (column: string) =>
      [...panel.element.querySelectorAll(`td[data-column="${column}"]`)].map(({ textContent }) => textContent);
    const tokens = () => [...panel.element.querySelectorAll<HTMLElement>("tbody .ml-token")];
    return { kernel, store, panel, find, cells, tokens };
  }

  it("has a row for each response, with its tokens, reward, and advantage with its sign", () => {
    const { find, cells, tokens, panel } = scene(SAMPLES);
    expect([...panel.element.querySelectorAll("th")].map(({ textContent }) => textContent)).toEqual([
      ...["from", "prompt", "response", "reward", "advantage"],
    ]);
    expect([cells("from"), cells("response"), cells("advantage")]).toEqual([
      ["held-out", "training"],
      ["ab", "c"],
      ["−0.25", "0"],
    ]);
    expect(tokens().map(({ dataset }) => dataset.place)).toEqual(["0", "1", "2"]);
    const rows = [...panel.element.querySelectorAll<HTMLElement>("tbody tr")];
    expect(rows.map(({ dataset }) => [dataset.source, dataset.sign])).toEqual([
      ["held-out", "negative"],
      ["training", "zero"],
    ]);
    expect(find("[role='grid']").getAttribute("aria-label")).toBe("response, token by token");
    panel.dispose();
  });

  it.each([
    [null, "", ""],
    [0.5, "+0.5", "positive"],
    [-0.5, "−0.5", "negative"],
  ])("shows the advantage %d as %j", (advantage, text, sign) => {
    const { cells, find, panel } = scene({ step: 1, rows: [{ ...ROW, advantage }], tokens: null });
    expect([cells("advantage"), find("tbody tr").dataset.sign]).toEqual([[text], sign]);
    panel.dispose();
  });

  it("shows every line and every invisible character of a prompt", () => {
    const row = { ...ROW, prompt: "a\n\n\tb", response: "" };
    const { cells, panel } = scene({ step: 1, rows: [row], tokens: null });
    expect([cells("prompt"), cells("response")]).toEqual([["a↵\n↵\n⇥b"], ["⟨empty⟩"]]);
    panel.dispose();
  });

  it("says what it will show before the first evaluation", () => {
    const { find, panel, kernel } = scene(null);
    const hidden = () => [".ml-tokens-note", ".ml-tokens-head", "table"].map((selector) => find(selector).hidden);
    expect([hidden(), find(".ml-samples-step").textContent]).toEqual([[false, true, true], ""]);
    expect(find(".ml-tokens-note").textContent).toBe("The run stores a few responses at each evaluation.");
    kernel.set("samples", SAMPLES);
    expect([hidden(), find(".ml-samples-step").textContent]).toEqual([
      [true, false, false],
      "of step 20: best and worst of two groups, and held-out answers",
    ]);
    kernel.set("samples", { ...SAMPLES, rows: [ROW], tokens: null });
    expect(hidden()).toEqual([true, true, false]);
    kernel.set("samples", null);
    expect([hidden(), find("tbody").children.length]).toEqual([[false, true, true], 0]);
    panel.dispose();
  });

  it("colours by the message's column, then by the chosen one, also in another view", () => {
    const { find, store, tokens, panel, kernel } = scene(SAMPLES);
    const select = find("select") as HTMLSelectElement;
    expect([[...select.options].map(({ value }) => value), select.value]).toEqual([["gradient", "weight"], "weight"]);
    const label = () => tokens()[1]?.getAttribute("aria-label");
    expect(label()).toBe("b, weight 1");
    select.value = "gradient";
    select.dispatchEvent(new Event("change"));
    expect([label(), store.view.samplesBy]).toEqual(["b, gradient −1", "gradient"]);
    expect(find(".ml-scale").textContent).toBe("−101nats · blue lowers");
    kernel.set("samples", { ...SAMPLES, step: 30 });
    expect([label(), select.value]).toEqual(["b, gradient −1", "gradient"]);
    panel.dispose();
    const other = scene(SAMPLES, { samplesBy: "gradient" });
    expect((other.find("select") as HTMLSelectElement).value).toBe("gradient");
    other.panel.dispose();
  });

  it("keeps the focus on the token at its place when new responses arrive", () => {
    const { kernel, tokens, panel } = scene(SAMPLES);
    expect(tokens().map(({ tabIndex }) => tabIndex)).toEqual([0, -1, -1]);
    tokens()[1]?.focus();
    kernel.set("samples", { ...SAMPLES, step: 30 });
    expect(document.activeElement).toBe(tokens()[1]);
    (document.activeElement as HTMLElement).blur();
    kernel.set("samples", { ...SAMPLES, step: 40 });
    expect(document.activeElement).toBe(document.body);
    panel.dispose();
  });

  it("draws nothing while it is folded, which is stored for other views", () => {
    const { panel, store, kernel, find } = scene(SAMPLES, { samples: false });
    expect([(panel.element as HTMLDetailsElement).open, find("tbody").children.length]).toEqual([false, 0]);
    panel.element.open = true;
    panel.element.dispatchEvent(new Event("toggle"));
    expect([store.view.samples, find("tbody").children.length]).toEqual([true, 2]);
    const row = find("tbody tr");
    store.viewChanged();
    expect(find("tbody tr")).toBe(row);
    panel.dispose();
    kernel.set("samples", { ...SAMPLES, rows: [] });
    expect([find("tbody").children.length, panel.element.isConnected]).toEqual([2, false]);
  });
});
