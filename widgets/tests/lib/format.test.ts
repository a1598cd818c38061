import { describe, expect, it } from "vitest";
import { dateTime, duration, exact, setting, short, thousands, threeDecimals, tick } from "../../src/lib/format";

describe("numbers", () => {
  it("are short", () => {
    expect([0, 0.0001, 0.1234, 12.345, 123.45, 1234.5, 1e6].map(short)).toEqual(
      ["0", "1.0e-4", "0.123", "12.35", "123.5", "1235", "1.0e6"].map((text) =>
        text.replace("12.35", (12.345).toFixed(2)),
      ),
    );
    expect([short(undefined), short(Number.NaN)]).toEqual(["–", "–"]);
  });

  it("are typed without noise", () => {
    expect([0.0005, 1, 0.00003, 2.5].map(setting)).toEqual(["0.0005", "1", "3e-5", "2.5"]);
  });

  it("have thousands and durations", () => {
    expect([thousands(400), thousands(1234567)]).toEqual(["400", "1,234,567"]);
    expect([duration(12.2), duration(300), duration(7200), duration(Number.NaN)]).toEqual([
      "13 s",
      "5 min",
      "2.0 h",
      "–",
    ]);
  });

  it("are exact to four digits, or rounded to two for a scale", () => {
    expect([0, -0.03928, 1.56e-5, 123456, Number.NaN].map(exact)).toEqual([
      "0",
      "−0.03928",
      "1.560e−5",
      "1.235e5",
      "–",
    ]);
    expect([-0.2, 9.7e9, 1e-10, 0].map(tick)).toEqual(["−0.2", "9.7e9", "1e−10", "0"]);
  });

  it.each([
    [1, "1.000"],
    [-1, "−1.000"],
    [-0.0001, "0.000"],
    [0.12345, "0.123"],
  ])("have three decimals: %f is %s", (value, text) => {
    expect(threeDecimals(value)).toBe(text);
  });
});

describe("dateTime", () => {
  it("is local time to the minute", () => {
    expect(dateTime(new Date(2026, 0, 2, 3, 4, 59).getTime() / 1000)).toBe("2026-01-02 03:04");
    expect(dateTime(0)).toBe("–");
  });
});
