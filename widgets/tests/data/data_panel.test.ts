// @vitest-environment jsdom
import { afterEach, describe, expect, it } from "vitest";
import "../page_stubs";
import { DataPanel } from "../../src/data/data_panel";
import type { DataReport } from "../../src/data_messages";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, settled, THEME } from "../support";
import { REPORT } from "./report";

const LOADING: DataReport = { ...REPORT, status: "loading", heading: "", findings: [], tokens: null };

const panels: DataPanel[] = [];

afterEach(() => {
  for (const panel of panels.splice(0)) panel.dispose();
});

function scene(audit: DataReport | null, isOpen = true) {
  const kernel = new FakeKernel({ snapshot: SNAPSHOT, audit });
  const store = new RunStore(kernel);
  store.view.data = isOpen;
  const panel = new DataPanel(store, () => THEME);
  panels.push(panel);
  document.body.append(panel.element);
  const find = <E extends HTMLElement = HTMLElement>(selector: string) => panel.element.querySelector(selector) as E;
  const requests = () => kernel.asked.filter(({ type }) => type === "data");
  return { kernel, store, panel, find, requests };
}

describe("DataPanel", () => {
  it("requests nothing while it is folded, and the data once when it opens", () => {
    const { panel, find, requests, store, kernel } = scene(null, false);
    expect([requests().length, find("summary").textContent]).toEqual([0, "Datawhat is trained, token by token"]);
    panel.element.open = true;
    panel.element.dispatchEvent(new Event("toggle"));
    expect([requests().length, store.view.data]).toEqual([1, true]);
    expect(find("[role=status]").textContent).toBe("Loading the tokenizer and the data …");
    kernel.set("audit", LOADING);
    expect([requests().length, find(".ml-data-content").hidden]).toEqual([1, true]);
    kernel.set("audit", REPORT);
    expect([requests().length, find(".ml-data-content").hidden, find("[role=status]").hidden]).toEqual([
      1,
      false,
      true,
    ]);
  });

  it("shows warnings first, numbers, lengths and rows, all as text", () => {
    const { find, panel } = scene(REPORT);
    expect(find("summary").textContent).toBe("Data3 pairs to train on");
    const findings = [...panel.element.querySelectorAll<HTMLElement>(".ml-finding")];
    expect(findings.map(({ dataset }) => dataset.severity)).toEqual(["warning", "note"]);
    expect(findings[0]?.textContent).toBe("!1 of 4 rows <b>: no gradient.→ remove it");
    expect(findings[0]?.querySelector("[role=img]")?.getAttribute("aria-label")).toBe("warning");
    expect([find("dt").textContent, find("dd").textContent]).toEqual(["rows read", "4"]);
    expect(find(".ml-lengths [role=img]").getAttribute("aria-label")).toBe("prompt: 2 to 3 tokens, most often 3");
    expect([...panel.element.querySelectorAll(".ml-token")].map(({ textContent }) => textContent)).toEqual([
      ...["Q", "<b>", "."],
    ]);
    expect(find(".ml-token[data-place='1']").getAttribute("aria-label")).toBe("<b>, weight 1");
    expect(find(".ml-tokens-head label").hidden).toBe(true);
    panel.dispose();
    expect(panel.element.isConnected).toBe(false);
  });

  it("says why the data cannot be loaded, and tries again on request", () => {
    const { find, kernel, requests } = scene({ ...LOADING, status: "failed", problem: "rows.jsonl is missing" });
    expect([find("[role=alert]").textContent, requests().length]).toEqual(["rows.jsonl is missing", 0]);
    const again = [...document.querySelectorAll<HTMLButtonElement>(".ml-data-panel > button")].find(
      ({ textContent }) => textContent === "Try again",
    );
    again?.click();
    expect(requests().length).toBe(1);
    kernel.set("audit", REPORT);
    expect([find("[role=alert]").hidden, again?.hidden, find(".ml-data-content").hidden]).toEqual([true, true, false]);
  });

  it("shows why the kernel refuses", async () => {
    const { find, kernel, requests } = scene(null);
    kernel.reply("a Scripted run does not show its data", requests().at(-1));
    await settled();
    expect([find("[role=alert]").textContent, find("[role=alert]").hidden]).toEqual([
      "a Scripted run does not show its data",
      false,
    ]);
  });

  it("requests the data of a new run", () => {
    const { kernel, requests, store } = scene(REPORT);
    expect(requests().length).toBe(0);
    kernel.set("audit", null);
    expect(requests().length).toBe(1);
    store.epoch = "b";
    store.viewChanged();
    expect(requests().length).toBe(2);
    store.viewChanged();
    expect(requests().length).toBe(2);
  });

  it("keeps what does not change from row to row", () => {
    const { find, kernel } = scene(REPORT);
    const [finding, bars] = [find(".ml-finding"), find(".ml-lengths")];
    kernel.set("audit", { ...REPORT, item: 1, row: 7 });
    expect([find(".ml-finding"), find(".ml-lengths")]).toEqual([finding, bars]);
    expect(find(".ml-rows-position").textContent).toBe("2 of 3");
    kernel.set("audit", { ...REPORT, findings: [] });
    expect(find(".ml-finding")).toBeNull();
  });

  it("asks for other rows through its control", () => {
    const { find, requests } = scene({ ...REPORT, item: 1, row: 7 });
    [...find(".ml-rows").querySelectorAll("button")][2]?.click();
    expect(requests().at(-1)).toMatchObject({ type: "data", item: 2 });
  });
});
