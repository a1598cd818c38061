// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { h, icon, listen, setAttributes, setText } from "../../src/lib/dom";

describe("h", () => {
  it("creates an element with attributes and children, whose text is never HTML", () => {
    const element = h("p", { class: "a", "data-n": 0, title: "" }, "<b>x</b>", h("i", {}, "y"));
    expect(element.outerHTML).toBe('<p class="a" data-n="0" title="">&lt;b&gt;x&lt;/b&gt;<i>y</i></p>');
  });

  it("leaves out what is false, null or undefined, and has true as an empty attribute", () => {
    const element = h("div", { a: false, b: null, c: undefined, d: true, e: "false", f: 0 });
    expect(element.outerHTML).toBe('<div d="" e="false" f="0"></div>');
  });

  it.each(["a", "button", "input", "select", "summary"] as const)(
    "keeps JupyterLab's shortcuts off a focused %s",
    (tag) => {
      expect(h(tag).getAttribute("data-lm-suppress-shortcuts")).toBe("true");
    },
  );

  it("does so for focusable elements only", () => {
    expect(h("div").attributes).toHaveLength(0);
  });
});

describe("setAttributes", () => {
  it("writes, empties and removes", () => {
    const element = h("div", { a: 1, b: 2, c: 3, d: 4 });
    setAttributes(element, { a: 5, b: true, c: false, d: null });
    expect(element.outerHTML).toBe('<div a="5" b=""></div>');
  });
});

describe("setText", () => {
  it("writes a text node, and nothing if the text is the same", () => {
    const element = h("p", {}, "a");
    const { firstChild } = element;
    setText(element, "a");
    expect(element.firstChild).toBe(firstChild);
    setText(element, "<b>");
    expect(element.innerHTML).toBe("&lt;b&gt;");
  });
});

describe("icon", () => {
  it("is a drawing without words, a different one for each name", () => {
    const names = ["play", "pause", "step", "stop", "again"] as const;
    const paths = names.map((name) => icon(name).querySelector("path")?.getAttribute("d"));
    expect(paths[0]).toBe("M4 2.5v11l9-5.5z");
    expect(new Set(paths).size).toBe(5);
    const attributes = [...icon("stop").attributes].map(({ name, value }) => `${name}=${value}`);
    expect(attributes).toEqual(["viewBox=0 0 16 16", "width=13", "height=13", "aria-hidden=true", "fill=currentColor"]);
    expect(icon("stop").namespaceURI).toBe("http://www.w3.org/2000/svg");
  });
});

describe("listen", () => {
  it("calls the handler for this type until it is disposed of", () => {
    const element = h("button");
    const handler = vi.fn();
    const dispose = listen(element, "click", handler);
    element.click();
    element.dispatchEvent(new Event("keydown"));
    expect(handler).toHaveBeenCalledTimes(1);
    dispose();
    element.click();
    expect(handler).toHaveBeenCalledTimes(1);
  });
});
