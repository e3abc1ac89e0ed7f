import { describe, expect, test } from "vitest";
import type { Traffic } from "../../api/traffic.ts";
import { byteSplits, chartData, newestAndPeak, rate } from "./traffic.ts";

const traffic: Traffic = {
  step_s: 10,
  from: "2026-11-29T12:00:00Z",
  to: "2026-11-29T12:00:30Z",
  nodes: 3,
  series: { fetched_bytes: [10240, null, 0], served_bytes: [], written_bytes: [], read_bytes: [] },
};

test("bytes per step become bytes per second at the time of the step, and what is unknown stays a gap", () => {
  const { times, values } = chartData(traffic, [
    { title: "Fetched", steps: traffic.series.fetched_bytes },
    { title: "Served", steps: traffic.series.served_bytes },
  ]);
  const begin = Date.parse(traffic.from) / 1000;
  expect(times).toEqual([begin, begin + 10, begin + 20]);
  expect(values).toEqual([
    [1024, null, 0],
    [null, null, null],
  ]);
});

test("the newest value is the last that is known", () => {
  expect(newestAndPeak([1, 9, 3, null])).toEqual({ newest: 3, peak: 9 });
  expect(newestAndPeak([null])).toEqual({ newest: null, peak: null });
});

describe("an axis of bytes", () => {
  test("has whole units as marks and ends above the highest value", () => {
    expect(byteSplits(0)).toEqual([0, 1024]);
    const mib = 2 ** 20;
    expect(byteSplits(100 * mib)).toEqual([0, 32, 64, 96, 128].map((n) => n * mib));
  });
});

test("a rate reads as bytes per second", () => {
  expect(rate(1536)).toBe("1.5 KiB/s");
  expect(rate(null)).toBe("–");
});
