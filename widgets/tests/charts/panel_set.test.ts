// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import type { Panel } from "../../src/charts/panel";
import { PanelSet } from "../../src/charts/panel_set";

interface FakeChart {
  name: string;
  unit?: string;
}

const charts = (...names: string[]): FakeChart[] => names.map((name) => ({ name }));

function scene() {
  const disposed: string[] = [];
  const created: string[] = [];
  const panels = new PanelSet<Panel>(false, () => {});
  const create = (chart: FakeChart, isMore: boolean) => {
    const element = document.createElement("figure");
    element.textContent = `${chart.name}${chart.unit ?? ""}${isMore ? "?" : ""}`;
    created.push(element.textContent);
    const dispose = () => {
      disposed.push(chart.name);
      element.remove();
    };
    return { element, dispose, point: () => {} } as unknown as Panel;
  };
  const shown = (place: HTMLElement) =>
    [...place.querySelectorAll("figure")].map((figure) => figure.textContent).join(" ");
  return {
    ...{ panels, created, disposed },
    arrange: (main: FakeChart[], more: FakeChart[] = []) => panels.arrange(main, more, create),
    main: () => shown(panels.main),
    more: () => shown(panels.moreBox),
  };
}

describe("PanelSet", () => {
  it("moves a chart between the main ones and the box", () => {
    const { arrange, main, more, panels } = scene();
    arrange(charts("loss"), charts("nll"));
    expect([main(), more(), panels.moreBox.hidden]).toEqual(["loss", "nll?", false]);
    arrange(charts("nll", "loss"));
    expect([main(), more(), panels.moreBox.hidden]).toEqual(["nll loss", "", true]);
    arrange(charts("loss"), charts("nll"));
    expect([main(), more(), panels.moreBox.hidden]).toEqual(["loss", "nll?", false]);
    expect([...panels.values()]).toEqual([panels.get("loss"), panels.get("nll")]);
  });

  it("has the order of its charts, whichever existed before", () => {
    const { arrange, main } = scene();
    arrange(charts("x", "b", "y"));
    arrange(charts("a", "b", "c"));
    expect(main()).toBe("a b c");
    arrange(charts("c", "b", "a"));
    expect(main()).toBe("c b a");
  });

  it("recreates a chart that changed, and no other", () => {
    const { arrange, main, created, disposed } = scene();
    arrange([{ name: "loss", unit: " nats" }, { name: "margin" }]);
    arrange([
      { name: "loss", unit: " nats" },
      { name: "margin", unit: " unscaled" },
    ]);
    arrange([
      { name: "loss", unit: " nats" },
      { name: "margin", unit: " unscaled" },
    ]);
    expect(main()).toBe("loss nats margin unscaled");
    expect(created).toEqual(["loss nats", "margin", "margin unscaled"]);
    expect(disposed).toEqual(["margin"]);
  });
});
