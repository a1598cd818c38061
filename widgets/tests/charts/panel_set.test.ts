// @vitest-environment jsdom
import { afterEach, describe, expect, it, vi } from "vitest";
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

  it("moves no chart that stands where it belongs, so that it keeps its focus and its zoom", () => {
    const { arrange, panels } = scene();
    arrange(charts("a", "b", "c"));
    const moves = vi.spyOn(panels.main, "insertBefore");
    arrange(charts("a", "b", "c"));
    expect(moves).not.toHaveBeenCalled();
    arrange(charts("a", "b", "c", "d"));
    expect(moves.mock.calls.map(([element]) => element.textContent)).toEqual(["d"]);
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

describe("the box of further metrics", () => {
  it("counts them, is as open as asked, and reports when a person opens it", () => {
    const onToggle = vi.fn();
    const closed = new PanelSet<Panel>(false, onToggle);
    expect([closed.moreBox.open, closed.moreBox.hidden, new PanelSet<Panel>(true, onToggle).moreBox.open]).toEqual([
      ...[false, true, true],
    ]);
    closed.moreBox.open = true;
    closed.moreBox.dispatchEvent(new Event("toggle"));
    expect(onToggle.mock.calls).toEqual([[true]]);
    const { arrange, panels } = scene();
    arrange([], charts("a", "b"));
    expect(panels.moreBox.querySelector("summary")?.textContent).toBe("More metrics (2)");
    arrange(charts("a"));
    expect(panels.moreBox.querySelector("summary")?.textContent).toBe("More metrics (0)");
  });

  it("disposes of every panel", () => {
    const { arrange, panels, disposed } = scene();
    arrange(charts("a"), charts("b"));
    panels.dispose();
    expect(disposed).toEqual(["a", "b"]);
    expect([...panels.values()]).toEqual([]);
  });
});

describe("the cursor of all panels", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it("moves once a frame, to the last step, and only if it changed", () => {
    vi.useFakeTimers();
    const panels = new PanelSet<Panel>(false, () => {});
    const point = vi.fn();
    panels.arrange(charts("a", "b"), [], () => {
      const element = document.createElement("figure");
      return { element, point, dispose: () => {} } as unknown as Panel;
    });
    panels.point(3);
    panels.point(4);
    expect([panels.cursor, point.mock.calls]).toEqual([4, []]);
    vi.advanceTimersToNextFrame();
    expect(point.mock.calls).toEqual([[4], [4]]);
    panels.point(4);
    vi.advanceTimersToNextFrame();
    expect(point).toHaveBeenCalledTimes(2);
    panels.point(null);
    panels.dispose();
    vi.advanceTimersToNextFrame();
    expect(point).toHaveBeenCalledTimes(2);
  });
});
