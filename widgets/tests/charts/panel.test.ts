// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { escapeHtml, Panel, pointMarker, stepAxis } from "../../src/charts/panel";
import { metricChart, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const legendAt = (value: string) => [{ label: "training", colour: "red", value, key: "loss/training" }];

class TestPanel extends Panel {
  override drawing() {
    return {
      ...{ traces: [], layout: {}, legend: legendAt("3"), points: 7, last: 3, isOverSteps: true },
      readout: (step: number) => legendAt(String(10 * step)),
      attributes: { "data-extra": "x" },
    };
  }
}

const title = (panel: Panel) => panel.element.querySelector(".ml-title") as HTMLElement;
const text = (panel: Panel, selector: string) => panel.element.querySelector(selector)?.textContent;

describe("Panel", () => {
  it("has the definition of its metric as the tooltip of its title", () => {
    const definition = "Share of pairs with a margin above 0: mean(m > 0).";
    expect(title(new TestPanel(metricChart("pair_accuracy", { definition }))).title).toBe(definition);
    expect(title(new TestPanel(metricChart("<img>", { definition: "" }))).title).toBe("<img>");
    expect(title(new TestPanel(metricChart("<img>"))).innerHTML).toBe("&lt;img&gt;");
  });

  it("shows the latest numbers, or those at the cursor", () => {
    const panel = new TestPanel(metricChart("loss"));
    panel.draw(viewOf(storeOf(snapshotOf({}))));
    expect([text(panel, ".ml-value"), text(panel, ".ml-unit")]).toEqual(["3", "nats"]);
    expect(panel.element.dataset).toMatchObject({ points: "7", last: "3", marks: "0", extra: "x" });
    panel.point(4);
    expect([text(panel, ".ml-value"), text(panel, ".ml-unit")]).toEqual(["40", "step 4"]);
    expect(panel.element.getAttribute("aria-label")).toBe("loss, step 4: training 40");
    panel.point(null);
    expect(text(panel, ".ml-value")).toBe("3");
  });

  it("reports hidden curves and enlarging to its grid", () => {
    const store = storeOf(snapshotOf({}));
    const panel = new TestPanel(metricChart("loss"));
    const onViewChange = vi.fn();
    const onEnlarge = vi.fn();
    panel.attach({
      ...{ onResize: vi.fn(), onPoint: vi.fn(), cursor: () => null, onZoom: vi.fn() },
      ...{ onViewChange, onEnlarge },
    });
    panel.draw(viewOf(store));
    panel.element.querySelector<HTMLButtonElement>(".ml-key")?.click();
    expect([...store.view.hidden]).toEqual(["loss/training"]);
    expect(onViewChange).toHaveBeenCalledOnce();
    panel.element.querySelector<HTMLButtonElement>(".ml-enlarge")?.click();
    expect(onEnlarge).toHaveBeenCalledWith("loss");
  });
});

describe("pointMarker", () => {
  it("is for a single point only", () => {
    expect(pointMarker(1, "red")).toEqual({ mode: "markers", marker: { color: "red", size: 5 } });
    expect(pointMarker(2, "red")).toEqual({});
  });
});

describe("escapeHtml", () => {
  it("leaves plotly no markup", () => {
    expect(escapeHtml("<b>A & B</b>")).toBe("&lt;b&gt;A &amp; B&lt;/b&gt;");
  });
});

describe("stepAxis", () => {
  it("has a tick at every step of a short run or a narrow view, and plotly's ticks otherwise", () => {
    expect(stepAxis([0, 2], THEME)).toMatchObject({ range: [0, 2], tickformat: "~s", dtick: 1 });
    expect(stepAxis([41.5, 47.5], THEME)).toHaveProperty("dtick", 1);
    expect(stepAxis([0, 7], THEME)).not.toHaveProperty("dtick");
  });
});
