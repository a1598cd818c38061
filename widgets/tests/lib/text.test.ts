import { describe, expect, it } from "vitest";
import { MAX_TOKEN_LENGTH, shortened, spelled, visible } from "../../src/lib/text";

describe("text", () => {
  it.each([
    [" cat", " cat"],
    ["   ", "␣␣␣"],
    ["a\n\tb", "a↵⇥b"],
    ["", "⟨empty⟩"],
    ["\u202egnp.exe", "⟨U+202E⟩gnp.exe"],
    ["\u2066a\u2069", "⟨U+2066⟩a⟨U+2069⟩"],
    ["\0\u001b", "⟨U+0000⟩⟨U+001B⟩"],
    ["a\u200bb", "a⟨U+200B⟩b"],
    ["\u200d", "⟨U+200D⟩"],
    ["👩\u200d👧", "👩\u200d👧"],
    ["\u0301", "◌\u0301"],
    ["\ud800", "⟨U+D800⟩"],
    ["\u00a0x", "⟨U+00A0⟩x"],
    ["<img src=x onerror=1>", "<img src=x onerror=1>"],
    ["שלום", "שלום"],
  ])("shows the invisible characters in %j", (text, shown) => {
    expect(visible(text)).toBe(shown);
  });

  it("is truncated between characters", () => {
    expect(shortened("w".repeat(10_000))).toBe(`${"w".repeat(32)}…`);
    expect(shortened("x".repeat(32))).toBe("x".repeat(32));
    expect(shortened("🙂".repeat(20))).toBe("🙂".repeat(20));
    expect(shortened("🙂".repeat(40))).toBe(`${"🙂".repeat(32)}…`);
  });

  it("shows every space when spelled", () => {
    expect(spelled(" a b")).toBe("␣a␣b");
  });
});

describe("text at the edges", () => {
  it.each([
    [" ", "␣"],
    [" a", " a"],
    ["a\r", "a␍"],
    ["\u2028", "⟨U+2028⟩"],
    ["\u{e0001}", "⟨U+E0001⟩"],
    ["a\ufe0f", "a\ufe0f"],
    ["❤\ufe0f\u200b", "❤\ufe0f⟨U+200B⟩"],
    ["a\u0301", "a\u0301"],
    ["\u0001", "⟨U+0001⟩"],
  ])("shows %j as %j", (text, shown) => {
    expect(visible(text)).toBe(shown);
  });

  it("is truncated after 32 characters, not before", () => {
    expect(MAX_TOKEN_LENGTH).toBe(32);
    expect(shortened("x".repeat(33))).toBe(`${"x".repeat(32)}…`);
    expect(shortened("🙂".repeat(32))).toBe("🙂".repeat(32));
    expect(shortened("🙂".repeat(33))).toBe(`${"🙂".repeat(32)}…`);
    expect(shortened(`${"🙂".repeat(31)}xy`)).toBe(`${"🙂".repeat(31)}x…`);
  });

  it("is spelled with symbols", () => {
    expect([spelled(""), spelled(" "), spelled("a b\n")]).toEqual(["⟨empty⟩", "␣", "a␣b↵"]);
  });
});
