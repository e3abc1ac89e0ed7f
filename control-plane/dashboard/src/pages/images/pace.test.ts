import { expect, test } from "vitest";
import { Pace } from "./pace.ts";

test("nothing is told before there is something to go by", () => {
  const pace = new Pace();
  expect(pace.perSecond()).toBeNull();
  pace.take(0, 0);
  pace.take(100, 1000);
  expect(pace.perSecond()).toBeNull();
  expect(pace.leftMs(2000)).toBeNull();
});

test("the pace is that of the last seconds, not of the whole upload", () => {
  const pace = new Pace();
  for (let second = 0; second <= 30; second += 1) {
    // 100 bytes a second first, 1,000 in the last ten.
    pace.take(second * 1000, second <= 20 ? second * 100 : 2000 + (second - 20) * 1000);
  }
  expect(pace.perSecond()).toBe(1000);
  expect(pace.leftMs(13_000)).toBe(1000);
});

test("an upload that stands still has no end in sight", () => {
  const pace = new Pace();
  for (let second = 0; second <= 10; second += 1) pace.take(second * 1000, 500);
  expect(pace.leftMs(1000)).toBeNull();
});
