// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { LossPicker } from "../../src/controls/picker";
import { RunStore } from "../../src/run_store";
import { ResizeObserverStub } from "../page_stubs";
import { FakeKernel, lossEntry, SNAPSHOT, STATE, settled } from "../support";

const LOSSES = [
  lossEntry("dpo", { formula: "a + b", paper: "https://example.org/dpo", inputs: [{ name: "reward", here: false }] }),
  lossEntry("nll", { family: "supervised", paper: "javascript:alert(1)" }),
  lossEntry("ipo", { reason: "it needs <pairs>", label: "ipo v3" }),
  lossEntry("odd", { family: "unknown" }),
];

function scene(loss = "dpo", hasState = true) {
  const state = { ...STATE, loss, loss_label: `${loss} v7` };
  const kernel = new FakeKernel(hasState ? { snapshot: { ...SNAPSHOT, losses: LOSSES, state } } : {});
  const store = new RunStore(kernel);
  const onRefusal = vi.fn();
  const picker = new LossPicker(store, onRefusal);
  document.body.append(picker.element, picker.wide);
  const select = picker.element.querySelector("select") as HTMLSelectElement;
  const [all, edit] = [...picker.element.querySelectorAll("button")] as [HTMLButtonElement, HTMLButtonElement];
  const text = (selector: string) => picker.element.querySelector(selector)?.textContent;
  const choose = (name: string) => {
    select.value = name;
    select.dispatchEvent(new Event("change"));
  };
  const sent = () => kernel.asked.filter(({ type }) => type !== "sync").map(({ request: _, ...others }) => others);
  return { kernel, store, onRefusal, picker, select, all, edit, text, choose, sent };
}

describe("LossPicker", () => {
  it("lists the losses by family, with the reason for those that cannot be used", () => {
    const { select, picker } = scene();
    expect([...select.querySelectorAll("optgroup")].map(({ label }) => label)).toEqual([
      ...["Preference", "Supervised", "unknown"],
    ]);
    expect([...select.options].map(({ value, text, disabled }) => [value, text, disabled])).toEqual([
      ["dpo", "dpo", false],
      ["ipo", "ipo v3 – it needs <pairs>", true],
      ["nll", "nll", false],
      ["odd", "odd", false],
    ]);
    expect([select.value, select.disabled]).toEqual(["dpo", false]);
    const label = picker.element.querySelector("label");
    expect([label?.textContent, label?.htmlFor === select.id, select.id]).toEqual([
      ...["Loss", true, expect.stringMatching(/^ml-loss-\d+$/)],
    ]);
    const other = scene();
    expect(other.select.id).not.toBe(select.id);
    other.picker.dispose();
    picker.dispose();
  });

  it("shows formula, summary, paper and inputs of the current loss", () => {
    const { text, picker } = scene();
    expect(picker.element.querySelectorAll(".ml-formula math")).toHaveLength(1);
    expect(picker.element.querySelector<HTMLElement>(".ml-formula")?.hidden).toBe(false);
    expect([text(".ml-summary"), text(".ml-inputs")]).toEqual(["About dpo. paper", "Reads reward – not in this data"]);
    const link = picker.element.querySelector("a") as HTMLAnchorElement;
    expect([link.href, link.target, link.rel]).toEqual(["https://example.org/dpo", "_blank", "noopener noreferrer"]);
    picker.dispose();
  });

  it("links to no address that is not https, and has no formula where the loss has none", () => {
    const { picker, text } = scene("nll");
    expect([picker.element.querySelector("a"), text(".ml-summary")]).toEqual([null, "About nll."]);
    expect(picker.element.querySelector<HTMLElement>(".ml-formula")?.hidden).toBe(true);
    picker.dispose();
  });

  it("sends the chosen loss once, and shows it until the kernel has answered", async () => {
    const { choose, sent, select, text, kernel, onRefusal, picker } = scene();
    choose("nll");
    expect(sent()).toEqual([{ type: "set_loss", name: "nll" }]);
    expect([select.value, text(".ml-summary"), onRefusal.mock.calls]).toEqual(["nll", "About nll.", []]);
    kernel.reply("not now");
    await settled();
    expect([select.value, text(".ml-summary"), onRefusal.mock.calls]).toEqual([
      "dpo",
      "About dpo. paper",
      [["not now"]],
    ]);
    picker.dispose();
  });

  it("follows the run", async () => {
    const { choose, kernel, store, onRefusal, select, picker } = scene();
    choose("nll");
    store.state = { ...STATE, loss: "nll" };
    kernel.reply("");
    await settled();
    expect([select.value, onRefusal.mock.calls]).toEqual(["nll", [[""]]]);
    store.state = { ...STATE, loss: "odd" };
    store.viewChanged();
    expect(select.value).toBe("odd");
    store.receive({ type: "losses", losses: [lossEntry("odd", { reason: "gone" })] }, []);
    expect([...select.options].map(({ text }) => text)).toEqual(["odd – gone"]);
    picker.dispose();
  });

  it("adds a loss that is in use but not listed, once", () => {
    const { select, store, text, picker } = scene("mine");
    const last = () => [...select.options].slice(4).map((option) => [option.value, option.text]);
    expect([last(), select.value, text(".ml-summary"), text(".ml-inputs")]).toEqual([
      [["mine", "mine v7"]],
      "mine",
      "",
      "",
    ]);
    store.viewChanged();
    expect(last()).toHaveLength(1);
    picker.dispose();
  });

  it("is disabled without a run", () => {
    const { select, picker } = scene("", false);
    expect([select.disabled, select.options.length]).toEqual([true, 0]);
    picker.dispose();
  });

  it("opens the cards of all losses, and uses one of them", () => {
    const { all, picker, sent } = scene();
    expect([all.textContent, all.getAttribute("aria-expanded")]).toEqual(["All losses", "false"]);
    all.click();
    expect(all.getAttribute("aria-expanded")).toBe("true");
    picker.wide.querySelector<HTMLButtonElement>("[data-loss='nll'][data-action='use']")?.click();
    expect(sent()).toEqual([{ type: "set_loss", name: "nll" }]);
    expect([all.getAttribute("aria-expanded"), document.activeElement]).toEqual(["false", all]);
    picker.dispose();
  });

  it("requests the cell of the current loss, or of a card", () => {
    const { edit, all, picker, sent } = scene();
    expect([edit.textContent, edit.title]).toEqual([
      ...["Edit as a cell", "A %%loss cell with the same loss, for you to change"],
    ]);
    edit.click();
    all.click();
    picker.wide.querySelector<HTMLButtonElement>("[data-loss='ipo'][data-action='edit']")?.click();
    expect(sent()).toEqual([
      { type: "cell", name: "dpo" },
      { type: "cell", name: "ipo" },
    ]);
    picker.dispose();
  });

  it("shows why there is no cell", async () => {
    const { edit, kernel, onRefusal, picker } = scene();
    edit.click();
    kernel.reply("no source");
    await settled();
    expect(onRefusal.mock.calls).toEqual([["no source"]]);
    picker.dispose();
  });

  it("is silent after dispose", () => {
    const { picker, choose, all, edit, sent, store, select } = scene();
    picker.dispose();
    choose("nll");
    all.click();
    edit.click();
    store.receive({ type: "losses", losses: [] }, []);
    expect([sent(), select.options.length]).toEqual([[], 4]);
    expect([picker.element.isConnected, picker.wide.isConnected]).toEqual([false, false]);
    expect([...ResizeObserverStub.active]).toEqual([]);
  });
});
