/**
 * Many members over time: how many have reached each step, as curves, and below them when members reached it, as bands.
 * The pointer or the arrow keys move a line whose counts are told.
 */
import { type KeyboardEvent, type PointerEvent, useCallback, useState } from "react";
import { count, duration } from "../../../ui/format.ts";
import { type Axis, edgesOf } from "./axis.ts";
import { drawAxis, type Field, placeIn, timeIn } from "./drawAxis.ts";
import classes from "./Timeline.module.css";
import { countUntil, density, type Reached, steps, stepTitles } from "./tracks.ts";
import { type Palette, useCanvas } from "./useCanvas.ts";

const curveHeight = 190;
const axisHeight = 22;
const bandHeight = 14;
const gutter = 76;
const height = curveHeight + axisHeight + steps.length * (bandHeight + 3) + 4;

const fieldOf = (width: number): Field => ({ left: gutter, right: width - 10, top: 10, bottom: curveHeight });

interface Props {
  reached: Reached;
  total: number;
  axis: Axis;
}

export function Curve({ reached, total, axis }: Props) {
  const [at, setAt] = useState<number>();
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, palette: Palette) => {
      const field = fieldOf(width);
      drawAxis(context, field, axis, palette);
      drawCounts(context, field, total, palette);
      for (const step of steps) drawCurve(context, field, axis, reached[step], total, palette.step[step]);
      steps.forEach((step, line) => {
        const top = curveHeight + axisHeight + line * (bandHeight + 3) + 2;
        context.font = `11px ${palette.font}`;
        context.fillStyle = palette.dim;
        context.textAlign = "right";
        context.textBaseline = "middle";
        context.fillText(stepTitles[step], field.left - 8, top + bandHeight / 2);
        drawBand(context, field, axis, reached[step], top, palette.step[step], palette.soft);
      });
    },
    [reached, total, axis],
  );
  const { box, canvas, width } = useCanvas(
    draw,
    useCallback(() => height, []),
  );
  const field = fieldOf(Math.max(gutter + 20, width));
  const time = at === undefined ? undefined : axis.time(at);
  const counts = steps.map(
    (step) => `${stepTitles[step].toLowerCase()} ${count(countUntil(reached[step], time ?? axis.max))}`,
  );

  const onMove = (event: PointerEvent<HTMLDivElement>) => {
    const x = event.clientX - event.currentTarget.getBoundingClientRect().left;
    setAt(x < field.left - 4 ? undefined : axis.place(timeIn(field, axis, x)));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const from = at ?? 0;
    const moves: Record<string, number> = {
      ArrowRight: from + 0.01,
      ArrowLeft: from - 0.01,
      PageUp: from + 0.1,
      PageDown: from - 0.1,
      Home: 0,
      End: 1,
    };
    const to = moves[event.key];
    if (to === undefined) return;
    setAt(Math.min(1, Math.max(0, to)));
    event.preventDefault();
  };
  return (
    <div
      ref={box}
      className={classes.curve}
      role="slider"
      tabIndex={0}
      aria-label="Members that have reached each step, over time"
      aria-valuemin={0}
      aria-valuemax={Math.round(axis.max)}
      aria-valuenow={Math.round(time ?? axis.max)}
      aria-valuetext={`after ${duration(time ?? axis.max)} of ${count(total)}: ${counts.join(", ")}`}
      onPointerMove={onMove}
      onPointerLeave={() => setAt(undefined)}
      onBlur={() => setAt(undefined)}
      onKeyDown={onKeyDown}
    >
      <canvas ref={canvas} style={{ width, height }} aria-hidden />
      {time !== undefined && (
        <>
          <div className={classes.line} style={{ left: placeIn(field, axis, time) }} />
          <div
            className={classes.float}
            aria-hidden
            style={
              (at ?? 0) > 0.5
                ? { right: width - placeIn(field, axis, time) + 10, top: 16 }
                : { left: placeIn(field, axis, time) + 10, top: 16 }
            }
          >
            <div className={classes.card}>
              <div className={classes.cardHead}>
                <b>{duration(time)}</b> after the request
              </div>
              <dl>
                {steps.map((step) => (
                  <div key={step}>
                    <dt>{stepTitles[step]}</dt>
                    <dd>{count(countUntil(reached[step], time))}</dd>
                  </div>
                ))}
              </dl>
            </div>
          </div>
        </>
      )}
    </div>
  );
}

/** The scale of the curves: nothing, half, and all. */
function drawCounts(context: CanvasRenderingContext2D, field: Field, total: number, palette: Palette): void {
  context.font = `11px ${palette.font}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const share of [0, 0.5, 1]) {
    const y = Math.round(field.bottom - share * (field.bottom - field.top)) + 0.5;
    context.strokeStyle = share === 0 ? palette.line : palette.soft;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(field.left, y);
    context.lineTo(field.right, y);
    context.stroke();
    context.fillStyle = palette.dim;
    context.fillText(count(Math.round(share * total)), field.left - 8, y);
  }
}

function drawCurve(
  context: CanvasRenderingContext2D,
  field: Field,
  axis: Axis,
  times: readonly number[],
  total: number,
  colour: string,
): void {
  const tall = field.bottom - field.top;
  const y = (members: number) => field.bottom - (members / Math.max(1, total)) * tall;
  context.beginPath();
  context.moveTo(field.left, y(countUntil(times, 0)));
  for (let x = field.left; x <= field.right; x += 1) context.lineTo(x, y(countUntil(times, timeIn(field, axis, x))));
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.stroke();
  context.lineTo(field.right, field.bottom);
  context.lineTo(field.left, field.bottom);
  context.globalAlpha = 0.14;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
}

/** A band of one step: the darker a place, the more members reached the step then. */
function drawBand(
  context: CanvasRenderingContext2D,
  field: Field,
  axis: Axis,
  times: readonly number[],
  top: number,
  colour: string,
  empty: string,
): void {
  const bins = Math.max(10, Math.floor((field.right - field.left) / 5));
  const members = density(times, edgesOf(axis, bins));
  const most = Math.max(1, ...members);
  const wide = (field.right - field.left) / bins;
  context.fillStyle = empty;
  context.fillRect(field.left, top, field.right - field.left, bandHeight);
  members.forEach((here, bin) => {
    if (here === 0) return;
    // A single member is seen, too.
    context.globalAlpha = 0.25 + 0.75 * Math.sqrt(here / most);
    context.fillStyle = colour;
    context.fillRect(field.left + bin * wide, top, Math.max(1, wide - 0.5), bandHeight);
  });
  context.globalAlpha = 1;
}
