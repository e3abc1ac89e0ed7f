import { expect, test } from "vitest";
import { axisTo, bestScale, edgesOf, marks } from "./axis.ts";

test("a place on an axis leads back to its time", () => {
  for (const scale of ["linear", "log"] as const) {
    const axis = axisTo(300_000, scale);
    for (const ms of [0, 3, 450, 299_000]) expect(axis.time(axis.place(ms))).toBeCloseTo(ms, 3);
    expect([axis.place(-5), axis.place(0), axis.place(300_000), axis.place(1e9)]).toEqual([0, 0, 1, 1]);
  }
});

test("the axis is logarithmic only where a few slow members would squeeze all others", () => {
  expect(bestScale(1_700, 2_100)).toBe("linear");
  expect(bestScale(80, 300_000)).toBe("log");
  expect(bestScale(2, 90)).toBe("linear");
  expect(bestScale(null, 90_000)).toBe("linear");
});

test("marks are round, begin with 0 and are not too many", () => {
  expect(marks(axisTo(2_130, "linear"), 6)).toEqual([0, 500, 1000, 1500, 2000]);
  expect(marks(axisTo(60, "linear"), 6)).toEqual([0, 20, 40, 60]);
  expect(marks(axisTo(300_000, "log"), 8)).toEqual([0, 1, 10, 100, 1_000, 10_000, 60_000]);
  expect(marks(axisTo(400 * 86_400_000, "linear"), 6).length).toBeLessThanOrEqual(6);
});

test("the parts of an axis cover all of it", () => {
  const edges = edgesOf(axisTo(1000, "log"), 4);
  expect([edges[0], edges[4], edges.length]).toEqual([0, 1000, 5]);
});
