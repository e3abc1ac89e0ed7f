import { describe, expect, test } from "vitest";
import { bytes, duration, percent, relative, remainingMs } from "./format.ts";

describe("sizes", () => {
  test.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [10 * 1024 + 512, "11 KiB"],
    [1024 * 1024 - 1, "1 MiB"],
    [64 * 2 ** 20, "64 MiB"],
    [16 * 2 ** 40, "16 TiB"],
    [2 ** 60, "1024 PiB"],
    [-2048, "-2 KiB"],
    [null, "–"],
    [undefined, "–"],
  ])("%s bytes read %s", (value, text) => expect(bytes(value)).toBe(text));
});

describe("lengths of time", () => {
  test.each([
    [0, "0 ms"],
    [2.24, "2.2 ms"],
    [840, "840 ms"],
    [999.6, "1.0 s"],
    [2_400, "2.4 s"],
    [59_600, "1 min"],
    [200_000, "3 min 20 s"],
    [7_500_000, "2 h 5 min"],
    [86_399_999, "1 d"],
    [98 * 3_600_000, "4 d 2 h"],
    [-5, "0 ms"],
    [null, "–"],
  ])("%s ms read %s", (value, text) => expect(duration(value)).toBe(text));
});

describe("times", () => {
  const now = Date.parse("2026-11-29T12:00:00Z");
  test.each([
    [-1_000, "now"],
    [-12_000, "12 s ago"],
    [-3 * 60_000, "3 min ago"],
    [-47 * 3_600_000, "47 h ago"],
    [-48 * 3_600_000, "2 d ago"],
    [5 * 3_600_000, "in 5 h"],
    [3650 * 86_400_000, "in 10 y"],
  ])("%s ms from now read %s", (offset, text) => expect(relative(now + offset, now)).toBe(text));
});

test("a share reads 0% only for nothing and 100% only for all", () => {
  expect(percent(0, 1000)).toBe("0%");
  expect(percent(1, 1000)).toBe("<1%");
  expect(percent(999, 1000)).toBe("99%");
  expect(percent(1000, 1000)).toBe("100%");
  expect(percent(1, 0)).toBe("–");
});

describe("the rest of the work", () => {
  test("takes as long per unit as the part that is done", () => {
    expect(remainingMs(25, 100, 0, 10_000)).toBe(30_000);
  });
  test("is not told before anything is done, when all is done, or in the first second", () => {
    expect(remainingMs(0, 100, 0, 10_000)).toBeNull();
    expect(remainingMs(100, 100, 0, 10_000)).toBeNull();
    expect(remainingMs(1, 100, 0, 900)).toBeNull();
    expect(remainingMs(1, 0, 0, 9_000)).toBeNull();
  });
});
