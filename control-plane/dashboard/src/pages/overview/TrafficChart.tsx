/** A chart of bytes per second over the last hour. It draws with uPlot and is loaded only where it is shown. */
import { useComputedColorScheme } from "@mantine/core";
import { useEffect, useRef } from "react";
import UPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Traffic } from "../../api/traffic.ts";
import classes from "./TrafficChart.module.css";
import { byteSplits, chartData, type Line, newestAndPeak, rate } from "./traffic.ts";

const height = 150;
/** The second line is dashed, so that colour is not the only sign. */
const dashes = [[], [5, 3]];

/** Whether a series has so few values that each is drawn as a point. */
const fewKnown = (chart: UPlot, series: number): boolean =>
  [...(chart.data[series] ?? [])].filter((value) => value !== null).length < 8;

export default function TrafficChart({ title, traffic, lines }: { title: string; traffic: Traffic; lines: Line[] }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot>(undefined);
  const scheme = useComputedColorScheme("light", { getInitialValueInEffect: false });
  const { times, values } = chartData(traffic, lines);
  const ends = values.map(newestAndPeak);
  const data = useRef<UPlot.AlignedData>([]);
  data.current = [times, ...values] as UPlot.AlignedData;
  const names = lines.map((line) => line.title).join("\n");

  // biome-ignore lint/correctness/useExhaustiveDependencies: another scheme has other colours
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const style = getComputedStyle(element);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis: UPlot.Axis = {
      stroke: colour("--mantine-color-dimmed"),
      grid: { stroke: colour("--line-soft"), width: 1 },
      ticks: { show: false },
      font: `11px ${style.fontFamily}`,
    };
    const made = new UPlot(
      {
        width: element.clientWidth,
        height,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 6 } },
        scales: {
          y: { range: (_, _min, max) => [0, byteSplits(max ?? 0).at(-1) ?? 1] },
        },
        axes: [
          { ...axis, size: 28, space: 70, values: "{HH}:{mm}" as never },
          {
            ...axis,
            size: 76,
            splits: (_, _index, _min, max) => byteSplits(max).filter((at) => at <= max),
            values: (_, splits) => splits.map((at) => rate(at)),
          },
        ],
        series: [
          {},
          ...names.split("\n").map((label, index) => ({
            label,
            stroke: colour(index === 0 ? "--focus" : "--state-busy"),
            width: 1.5,
            dash: dashes[index] ?? [],
            // A line of one value is not seen.
            points: { show: fewKnown, size: 5 },
            spanGaps: false,
          })),
        ],
      },
      data.current,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [scheme, names]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the data is made of the traffic
  useEffect(() => plot.current?.setData(data.current), [traffic]);

  const words = lines.map(
    (line, index) => `${line.title}: now ${rate(ends[index]?.newest)}, highest ${rate(ends[index]?.peak)}`,
  );
  return (
    <div>
      <ul className={classes.legend}>
        {lines.map((line, index) => (
          <li key={line.title}>
            <svg width={18} height={8} aria-hidden="true">
              <line
                x1={0}
                y1={4}
                x2={18}
                y2={4}
                strokeWidth={2}
                strokeDasharray={dashes[index]?.join(" ") || undefined}
                style={{ stroke: index === 0 ? "var(--focus)" : "var(--state-busy)" }}
              />
            </svg>
            {line.title} <b>{rate(ends[index]?.newest)}</b>
            <span className={classes.peak}>highest {rate(ends[index]?.peak)}</span>
          </li>
        ))}
      </ul>
      <div ref={box} className={classes.chart} role="img" aria-label={`${title}. ${words.join(". ")}`} />
      {ends.every(({ peak }) => peak === null) && (
        <p className={classes.none}>No node has told its traffic yet. The first numbers come within a minute.</p>
      )}
    </div>
  );
}
