/** Axes of time for the drawings: from milliseconds to a place and back, with round marks. Pure; tested in axis.test.ts. */

export type Scale = "linear" | "log";

export interface Axis {
  scale: Scale;
  /** The last time that is shown, in milliseconds. */
  max: number;
  /** The place of a time, from 0 to 1. */
  place: (ms: number) => number;
  /** The time at a place. */
  time: (place: number) => number;
}

/** Below this a logarithmic axis is squeezed to its begin. */
const logFloorMs = 1;

export function axisTo(max: number, scale: Scale): Axis {
  const end = Math.max(1, max);
  if (scale === "linear") {
    return { scale, max: end, place: (ms) => clamp(ms / end), time: (place) => place * end };
  }
  const whole = Math.log1p(end / logFloorMs);
  return {
    scale,
    max: end,
    place: (ms) => clamp(Math.log1p(Math.max(0, ms) / logFloorMs) / whole),
    time: (place) => Math.expm1(place * whole) * logFloorMs,
  };
}

const clamp = (share: number) => Math.min(1, Math.max(0, share));

/** A few slow members must not squeeze all others into one line: then the axis is logarithmic. */
export function bestScale(median: number | null, max: number): Scale {
  return median !== null && max > 2_000 && max > 25 * Math.max(1, median) ? "log" : "linear";
}

const roundSteps = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
  1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000,
];

/** Round times along an axis, at most `most` of them, beginning with 0. */
export function marks(axis: Axis, most: number): number[] {
  if (axis.scale === "log") {
    const decades = [0, 1, 10, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000, 360_000_000];
    const within = decades.filter((ms) => ms <= axis.max);
    const every = Math.ceil(within.length / Math.max(1, most));
    return within.filter((_, index) => index % every === 0);
  }
  const days = 86_400_000;
  const step =
    roundSteps.find((each) => axis.max / each <= Math.max(1, most - 1)) ??
    days * Math.ceil(axis.max / days / Math.max(1, most - 1));
  return Array.from({ length: Math.floor(axis.max / step) + 1 }, (_, n) => n * step);
}

/** The times between `bins` parts of equal width on the axis. */
export function edgesOf(axis: Axis, bins: number): number[] {
  return Array.from({ length: bins + 1 }, (_, n) => (n === bins ? axis.max : axis.time(n / bins)));
}
