// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import type { Panel } from "../src/charts/panel";
import { PanelSet } from "../src/charts/panels";

interface Wanted {
  name: string;
  unit?: string;
}

const charts = (...names: string[]): Wanted[] => names.map((name) => ({ name }));

function scene() {
  const disposed: string[] = [];
  const made: string[] = [];
  const set = new PanelSet<Panel>(false, () => {});
  const make = (chart: Wanted, stray: boolean) => {
    const element = document.createElement("figure");
    element.textContent = `${chart.name}${chart.unit ?? ""}${stray ? "?" : ""}`;
    made.push(element.textContent);
    const dispose = () => {
      disposed.push(chart.name);
      element.remove();
    };
    return { element, dispose, point: () => {} } as unknown as Panel;
  };
  const shown = (place: HTMLElement) => [...place.children].map((child) => child.textContent).join(" ");
  return {
    ...{ set, made, disposed },
    arrange: (main: Wanted[], more: Wanted[] = []) => set.arrange(main, more, make),
    main: () => shown(set.main),
    more: () => shown(set.more),
  };
}

describe("PanelSet", () => {
  it("has a chart that was a further metric among the main ones, and back", () => {
    const { arrange, main, more, set } = scene();
    arrange(charts("loss"), charts("nll"));
    expect([main(), more(), set.box.hidden]).toEqual(["loss", "nll?", false]);
    arrange(charts("nll", "loss"));
    expect([main(), more(), set.box.hidden]).toEqual(["nll loss", "", true]);
    arrange(charts("loss"), charts("nll"));
    expect([main(), more(), set.box.hidden]).toEqual(["loss", "nll?", false]);
    expect([...set.panels.keys()].sort()).toEqual(["loss", "nll"]);
  });

  it("has the order of its charts, whichever were there before", () => {
    const { arrange, main } = scene();
    arrange(charts("x", "b", "y"));
    arrange(charts("a", "b", "c"));
    expect(main()).toBe("a b c");
    arrange(charts("c", "b", "a"));
    expect(main()).toBe("c b a");
  });

  it("makes a chart anew that means something else, and no other", () => {
    const { arrange, main, made, disposed } = scene();
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
    expect(made).toEqual(["loss nats", "margin", "margin unscaled"]);
    expect(disposed).toEqual(["margin"]);
  });
});
