// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { ChartLegend, legendText } from "../../src/charts/chart_legend";

const TRAINING = { label: "training", colour: "red", value: "1.0", key: "loss/training" };
const SHARE = { label: "above 0", colour: "blue", value: "60 %" };

const rows = (legend: ChartLegend) => [...legend.element.children] as HTMLElement[];
const described = (row: HTMLElement | undefined) => [
  ...[row?.localName, row?.className, row?.getAttribute("type"), row?.dataset.key, row?.getAttribute("aria-pressed")],
  ...[
    row?.title,
    ...[...(row?.children ?? [])].map((part) => `${part.localName}.${part.className}:${part.textContent}`),
  ],
];

describe("ChartLegend", () => {
  it("has a button for a curve and plain text for a share", () => {
    const legend = new ChartLegend();
    legend.draw([TRAINING, SHARE]);
    expect(rows(legend).map(described)).toEqual([
      [
        ...["button", "ml-key", "button", "loss/training", "true", "Hide"],
        ...["i.:", "span.ml-key-label:training", "b.ml-value:1.0"],
      ],
      ["span", "ml-key", null, undefined, null, "", "i.:", "span.ml-key-label:above 0", "b.ml-value:60 %"],
    ]);
    expect(rows(legend).map((row) => (row.firstElementChild as HTMLElement).style.background)).toEqual(["red", "blue"]);
    expect(rows(legend)[0]?.dataset.lmSuppressShortcuts).toBe("true");
  });

  it("says off for a hidden curve, which a press shows again", () => {
    const legend = new ChartLegend();
    legend.draw([{ ...TRAINING, hidden: true }]);
    const [row] = rows(legend);
    expect([row?.querySelector("b")?.textContent, row?.getAttribute("aria-pressed"), row?.title]).toEqual([
      ...["off", "false", "Show"],
    ]);
  });

  it("reports the key of the pressed entry once, and nothing for a share or after dispose", () => {
    const legend = new ChartLegend();
    const onToggle = vi.fn();
    legend.onToggle = onToggle;
    legend.draw([SHARE, TRAINING, { ...TRAINING, key: "" }]);
    rows(legend)[1]?.querySelector("b")?.click();
    rows(legend)[0]?.click();
    rows(legend)[2]?.click();
    expect(onToggle.mock.calls).toEqual([["loss/training"], [""]]);
    legend.dispose();
    rows(legend)[1]?.click();
    expect(onToggle).toHaveBeenCalledTimes(2);
  });

  it("reuses its elements, drops those of entries that are gone, and replaces one of another kind", () => {
    const legend = new ChartLegend();
    legend.draw([TRAINING, SHARE, SHARE]);
    const [first, second] = rows(legend);
    legend.draw([
      { ...TRAINING, value: "<i>" },
      { ...TRAINING, key: "b" },
    ]);
    expect(rows(legend)).toHaveLength(2);
    expect(rows(legend)[0]).toBe(first);
    expect(first?.querySelector("b")?.innerHTML).toBe("&lt;i&gt;");
    expect(rows(legend)[1]).not.toBe(second);
    expect(rows(legend)[1]?.localName).toBe("button");
    legend.draw([]);
    expect(rows(legend)).toEqual([]);
  });
});

describe("legendText", () => {
  it("has labels and values in their order", () => {
    expect(legendText([TRAINING, { ...SHARE, hidden: true }])).toBe("training 1.0, above 0 off");
    expect(legendText([])).toBe("");
  });
});
