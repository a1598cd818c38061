// @vitest-environment jsdom
import { toPng } from "html-to-image";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { downloads, fileStem } from "../../src/charts/downloads";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, THEME } from "../support";

vi.mock("html-to-image", () => ({ toPng: vi.fn() }));

describe("fileStem", () => {
  const state = { ...STATE, steps_done: 60, loss: "dpo", last_loss: "pairwise_preference" };

  it("names the loss that made the last step, not the one that was chosen since", () => {
    expect(fileStem(state)).toBe("preference-pairwise_preference-step60");
    expect(fileStem({ ...state, last_loss: "" })).toBe("preference-step60");
    expect(fileStem(null)).toBe("run-step0");
  });

  it("contains no path", () => {
    expect(fileStem({ ...state, last_loss: "<img src=x>/../" })).toBe("preference-_img_src_x_-step60");
  });
});

describe("downloads", () => {
  const saved: { name: string; url: string }[] = [];
  const blobs: Blob[] = [];
  const revoked: string[] = [];

  beforeEach(() => {
    vi.useFakeTimers();
    for (const list of [saved, blobs, revoked]) list.length = 0;
    vi.stubGlobal(
      "URL",
      Object.assign(class extends URL {}, {
        createObjectURL: (blob: Blob) => `blob:${blobs.push(blob)}`,
        revokeObjectURL: (url: string) => revoked.push(url),
      }),
    );
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      saved.push({ name: this.download, url: this.href });
    });
    vi.mocked(toPng).mockReset();
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });

  function scene() {
    const state = { ...STATE, recipe: "spell", last_loss: "dpo", steps_done: 7 };
    const kernel = new FakeKernel({ snapshot: { ...SNAPSHOT, state } });
    const charts = document.createElement("div");
    const { element, dispose } = downloads(
      new RunStore(kernel),
      () => charts,
      () => THEME,
    );
    const buttons = [...element.querySelectorAll("button")];
    const press = (label: string) => buttons.find(({ textContent }) => textContent === label)?.click();
    const answer = (text: string) => {
      const { request } = kernel.asked.at(-1) ?? {};
      kernel.say({ type: "document", request }, [new DataView(new TextEncoder().encode(text).buffer)]);
      return vi.advanceTimersByTimeAsync(0);
    };
    const note = element.querySelector("[role='status']") as HTMLElement;
    const asked = () => kernel.asked.filter(({ type }) => type !== "sync").map(({ type }) => type);
    return { kernel, charts, element, dispose, buttons, press, answer, note, asked };
  }

  it("has a button for each format", () => {
    const { buttons, element } = scene();
    expect(buttons.map(({ textContent, title }) => [textContent, title])).toEqual([
      ["PNG", "Download: The charts as a picture"],
      ["CSV", "Download: Every step and every metric, as a table"],
      ["plotly", "Download: The charts as JSON, for plotly.io.from_json"],
    ]);
    expect(element.getAttribute("aria-label")).toBe("Download");
  });

  it.each([
    ["CSV", "csv", "spell-dpo-step7.csv", "text/csv"],
    ["plotly", "figure", "spell-dpo-step7.plotly.json", "application/json"],
  ])("saves %s from the kernel, and frees the memory later", async (label, request, name, mime) => {
    const { press, answer, asked } = scene();
    press(label);
    expect(asked()).toEqual([request]);
    expect(saved).toEqual([]);
    await answer("a,b\n1,2\n");
    expect(saved).toEqual([{ name, url: "blob:1" }]);
    expect(blobs.map(({ type, size }) => [type, size])).toEqual([[mime, 8]]);
    await vi.advanceTimersByTimeAsync(9_999);
    expect(revoked).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(revoked).toEqual(["blob:1"]);
  });

  it("saves a picture of the charts on the page's background", async () => {
    const { press, charts, asked } = scene();
    vi.mocked(toPng).mockResolvedValue("data:image/png;base64,x");
    press("PNG");
    await vi.advanceTimersByTimeAsync(20_000);
    expect(vi.mocked(toPng).mock.calls).toEqual([
      [charts, { backgroundColor: THEME.surface, pixelRatio: 2, skipFonts: true }],
    ]);
    expect(saved).toEqual([{ name: "spell-dpo-step7.png", url: "data:image/png;base64,x" }]);
    expect([revoked, asked()]).toEqual([[], []]);
  });

  it("shows why there is no file, until the next try", async () => {
    const { press, kernel, note } = scene();
    press("CSV");
    kernel.reply("the folder is gone");
    await vi.advanceTimersByTimeAsync(0);
    expect([note.textContent, saved]).toEqual(["the folder is gone", []]);
    vi.mocked(toPng).mockRejectedValue(new Event("error"));
    press("PNG");
    expect(note.textContent).toBe("");
    await vi.advanceTimersByTimeAsync(0);
    expect(note.textContent).toBe("not possible in this browser");
    vi.mocked(toPng).mockRejectedValue(new Error(""));
    press("PNG");
    await vi.advanceTimersByTimeAsync(0);
    expect(note.textContent).toBe("not possible in this browser");
  });

  it("requests nothing after dispose", () => {
    const { press, dispose, asked } = scene();
    dispose();
    press("CSV");
    expect(asked()).toEqual([]);
  });
});
