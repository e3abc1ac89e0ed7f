import { useCallback } from "react";
import type { Axis } from "./axis.ts";
import { drawAxis, type Field, placeIn } from "./drawAxis.ts";
import { type Layout, Members } from "./Members.tsx";
import { lengthAt, type Phase, type Step, steps, type Track } from "./tracks.ts";
import type { Palette } from "./useCanvas.ts";

const rowHeight = 22;
const barHeight = 12;
const axisHeight = 24;

/** The phase that ends with each step. */
const until: Record<Step, Phase> = { placed: "waiting", disk: "disk", started: "starting", ready: "booting" };

/** A few members: a row for each, from its request until it is ready. */
export function MemberRows({ tracks, axis, now }: { tracks: readonly Track[]; axis: Axis; now: number }) {
  const layout = useCallback(
    (width: number): Layout => ({
      height: tracks.length * rowHeight + axisHeight,
      box: (index) => ({ x: 2, y: index * rowHeight + 1, width: width - 4, height: rowHeight - 2 }),
      at: (_x, y) => Math.floor(y / rowHeight),
      perLine: 1,
    }),
    [tracks.length],
  );
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, palette: Palette) => {
      context.font = `12px ${palette.font}`;
      const names = Math.max(...tracks.map(({ member }) => context.measureText(member.name).width));
      const gutter = Math.min(width * 0.4, names + 26);
      const field: Field = { left: gutter, right: width - 14, top: 0, bottom: tracks.length * rowHeight };
      drawAxis(context, field, axis, palette);
      tracks.forEach((track, index) => {
        drawRow(context, track, index * rowHeight, field, axis, now, palette);
      });
    },
    [tracks, axis, now],
  );
  return <Members tracks={tracks} now={now} label="Members by time" layout={layout} draw={draw} />;
}

function drawRow(
  context: CanvasRenderingContext2D,
  track: Track,
  top: number,
  field: Field,
  axis: Axis,
  now: number,
  palette: Palette,
): void {
  const middle = top + rowHeight / 2;
  const failed = track.phase === "failed";
  context.font = `${failed ? "600 " : ""}12px ${palette.font}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = failed ? palette.phase.failed : palette.text;
  context.fillText(track.member.name, 4, middle, field.left - 26);

  const bar = (from: number, to: number, colour: string) => {
    const left = placeIn(field, axis, from);
    context.fillStyle = colour;
    context.fillRect(left, middle - barHeight / 2, Math.max(1, placeIn(field, axis, to) - left), barHeight);
  };
  let before = 0;
  for (const step of steps) {
    const time = track.at[step];
    if (time === null) break;
    if (time > before) bar(before, time, palette.phase[until[step]]);
    before = Math.max(before, time);
  }
  const end = lengthAt(track, now);
  if (track.at.ready === null && end > before) {
    bar(
      before,
      end,
      failed ? palette.phase.failed : track.phase === "other" ? palette.phase.other : palette.phase[track.phase],
    );
  }
  const x = placeIn(field, axis, Math.max(before, end));
  if (failed) cross(context, x + 7, middle, palette.phase.failed);
  else if (track.phase === "ready") {
    context.fillStyle = palette.phase.ready;
    context.beginPath();
    context.arc(x, middle, 4.5, 0, 2 * Math.PI);
    context.fill();
  }
}

/** The mark of a failed member, which is seen without colours too. */
export function cross(context: CanvasRenderingContext2D, x: number, y: number, colour: string, arm = 4): void {
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - arm, y - arm);
  context.lineTo(x + arm, y + arm);
  context.moveTo(x + arm, y - arm);
  context.lineTo(x - arm, y + arm);
  context.stroke();
}
