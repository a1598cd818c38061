// @vitest-environment jsdom
import { afterEach, beforeEach, expect, it, vi } from "vitest";

const CODE = `export default () => {
  const widget = { number: (globalThis.opened = (globalThis.opened ?? 0) + 1) };
  return {
    initialize: ({ model }) => { model.log.push("initialize " + widget.number); return () => model.log.push("dispose"); },
    render: ({ model, el }) => { model.log.push("render into " + el.id); return () => model.log.push("remove"); },
  };
};`;
const bundled = vi.hoisted(() => ({ text: "" }));
vi.mock("bundled:widgets.ts", () => ({
  get default() {
    return bundled.text;
  },
}));

const revoked: string[] = [];
let open: typeof import("../src/loader").default;

beforeEach(async () => {
  bundled.text = CODE;
  revoked.length = 0;
  globalThis.mintLabModules = undefined;
  (globalThis as { opened?: number }).opened = 0;
  vi.stubGlobal(
    "Blob",
    class {
      constructor(readonly parts: string[]) {}
    },
  );
  const address = ({ parts }: { parts: string[] }) => `data:text/javascript,${encodeURIComponent(parts.join(""))}`;
  Object.assign(URL, { createObjectURL: address, revokeObjectURL: (url: string) => revoked.push(url) });
  vi.resetModules();
  open = (await import("../src/loader")).default;
});
afterEach(() => vi.unstubAllGlobals());

const modelWith = (log: string[]) => ({ log, get: () => "", send: () => {}, on: () => {}, off: () => {} });
const element = (id: string) => Object.assign(document.createElement("div"), { id });

it("initializes at once, and renders once the code is loaded and has the model", async () => {
  const log: string[] = [];
  const widget = open();
  const model = modelWith(log);
  widget.initialize({ model });
  expect(log).toEqual([]); // anywidget does not have to wait for the code
  const remove = await widget.render({ model, el: element("first") });
  await widget.render({ model, el: element("second") });
  expect(log).toEqual(["initialize 1", "render into first", "render into second"]);
  remove?.();
  expect(log.at(-1)).toBe("remove");
});

it("loads the code once for all widgets of a page, which are separate", async () => {
  const log: string[] = [];
  const model = modelWith(log);
  for (const id of ["a", "b"]) {
    const widget = open();
    widget.initialize({ model });
    await widget.render({ model, el: element(id) });
  }
  expect(log).toEqual(["initialize 1", "render into a", "initialize 2", "render into b"]);
  expect(globalThis.mintLabModules?.size).toBe(1);
  expect(revoked).toHaveLength(1);
});

it("disposes of a widget that is closed before its code is loaded", async () => {
  const log: string[] = [];
  const dispose = open().initialize({ model: modelWith(log) });
  dispose();
  await vi.waitFor(() => expect(log).toEqual(["initialize 1", "dispose"]));
});

it("a code that does not load is an error of every view", async () => {
  bundled.text = "throw new Error('no code')";
  vi.resetModules();
  const widget = (await import("../src/loader")).default();
  const model = modelWith([]);
  widget.initialize({ model });
  await expect(widget.render({ model, el: element("a") })).rejects.toThrow("no code");
  expect(globalThis.mintLabModules?.size).toBe(0); // the next widget tries again
});
