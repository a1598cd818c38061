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

describe("numbers at the edges", () => {
  it.each([
    [0.001, "0.001"],
    [0.00099, "9.9e-4"],
    [-0.0001, "-1.0e-4"],
    [9.9994, "9.999"],
    [10, "10.00"],
    [-12.346, "-12.35"],
    [99.994, "99.99"],
    [100, "100.0"],
    [999.5, "999.5"],
    [999.94, "999.9"],
    [1000, "1000"],
    [99999, "99999"],
    [100000, "1.0e5"],
    [-250000, "-2.5e5"],
    [1e-5, "1.0e-5"],
    [-0, "0"],
    [Number.POSITIVE_INFINITY, "–"],
    [Number.NEGATIVE_INFINITY, "–"],
  ])("%d is short: %s", (value, text) => {
    expect(short(value)).toBe(text);
  });

  it.each([
    [0, "0"],
    [0.0001, "0.0001"],
    [0.00009, "9e-5"],
    [-0.00009, "-9e-5"],
    [-2.5, "-2.5"],
    [1.23456, "1.235"],
    [123456, "123500"],
    [1e-5, "1e-5"],
  ])("%d is typed as %s", (value, text) => {
    expect(setting(value)).toBe(text);
  });

  it.each([
    [0, "0"],
    [999, "999"],
    [999.5, "1,000"],
    [1000, "1,000"],
    [1234567, "1,234,567"],
    [100, "100"],
  ])("%d has thousands: %s", (value, text) => {
    expect(thousands(value)).toBe(text);
  });

  it.each([
    [0, "0 s"],
    [0.1, "1 s"],
    [89.9, "90 s"],
    [90, "2 min"],
    [149, "2 min"],
    [150, "3 min"],
    [5399, "90 min"],
    [5400, "1.5 h"],
    [36000, "10.0 h"],
    [-1, "–"],
    [Number.POSITIVE_INFINITY, "–"],
  ])("%d seconds are %s", (value, text) => {
    expect(duration(value)).toBe(text);
  });

  it.each([
    [0.001, "0.001"],
    [0.000999, "9.990e−4"],
    [-0.0005, "−5.000e−4"],
    [99999, "100000"],
    [100000, "1.000e5"],
    [-123456, "−1.235e5"],
    [1.23456, "1.235"],
    [Number.NEGATIVE_INFINITY, "–"],
  ])("%d is exact: %s", (value, text) => {
    expect(exact(value)).toBe(text);
  });

  it.each([
    [0.001, "0.001"],
    [-0.00099, "−9.9e−4"],
    [0.0009999, "0.001"],
    [94999, "95000"],
    [99999, "1e5"],
    [-123456, "−1.2e5"],
    [1.26, "1.3"],
  ])("%d is a tick: %s", (value, text) => {
    expect(tick(value)).toBe(text);
  });

  it.each([
    [0, "0.000"],
    [-0, "0.000"],
    [-0.0006, "−0.001"],
    [-12.5, "−12.500"],
    [1234.5, "1234.500"],
  ])("%d has three decimals: %s", (value, text) => {
    expect(threeDecimals(value)).toBe(text);
  });

  it("are dates with two digits, and a dash for no time", () => {
    expect(dateTime(new Date(2026, 10, 27, 22, 48).getTime() / 1000)).toBe("2026-11-27 22:48");
    expect([dateTime(-1), dateTime(Number.NaN)]).toEqual(["–", "–"]);
    expect(dateTime(1)).toMatch(/^(1970-01-01|1969-12-31) \d\d:\d\d$/);
  });
});
