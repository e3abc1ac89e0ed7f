/** What the charts of traffic compute. Pure; tested in traffic.test.ts. */
import type { Steps, Traffic } from "../../api/traffic.ts";
import { bytes } from "../../ui/format.ts";

export interface Line {
  title: string;
  steps: Steps;
}

/** `12 MiB/s`. */
export const rate = (perSecond: number | null | undefined): string =>
  perSecond === null || perSecond === undefined ? "–" : `${bytes(perSecond)}/s`;

/** The times of the steps in seconds since 1970, and each line in bytes per second. */
export function chartData(traffic: Traffic, lines: readonly Line[]): { times: number[]; values: Steps[] } {
  const begin = Math.round(Date.parse(traffic.from) / 1000);
  const length = Math.max(0, ...lines.map(({ steps }) => steps.length));
  const times = Array.from({ length }, (_, step) => begin + step * traffic.step_s);
  const values = lines.map(({ steps }) =>
    times.map((_, step) => {
      const value = steps[step];
      return value === null || value === undefined ? null : value / traffic.step_s;
    }),
  );
  return { times, values };
}

/** The newest value that is known, and the highest. */
export function newestAndPeak(values: Steps): { newest: number | null; peak: number | null } {
  let newest: number | null = null;
  let peak: number | null = null;
  for (const value of values) {
    if (value === null) continue;
    newest = value;
    if (peak === null || value > peak) peak = value;
  }
  return { newest, peak };
}

/** Where an axis of bytes has its marks: powers of two times one, two or five would not read as whole units. */
export function byteSplits(max: number, marks = 4): number[] {
  if (max <= 0) return [0, 1024];
  let step = 1;
  while (max / step > marks) step *= 2;
  const splits: number[] = [];
  for (let at = 0; at < max + step; at += step) splits.push(at);
  return splits;
}
