import { duration } from "../../../ui/format.ts";
import { type Axis, marks } from "./axis.ts";
import type { Palette } from "./useCanvas.ts";

export interface Field {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** The place of a time in a field, in pixels. */
export const placeIn = (field: Field, axis: Axis, ms: number) =>
  field.left + axis.place(ms) * (field.right - field.left);

/** The time at a pixel of a field. */
export const timeIn = (field: Field, axis: Axis, x: number) =>
  axis.time(Math.min(1, Math.max(0, (x - field.left) / (field.right - field.left))));

/** Draws lines at round times through a field, and their times below it. */
export function drawAxis(context: CanvasRenderingContext2D, field: Field, axis: Axis, palette: Palette): void {
  context.font = `11px ${palette.font}`;
  context.textBaseline = "top";
  context.lineWidth = 1;
  const width = field.right - field.left;
  let free = Number.NEGATIVE_INFINITY;
  for (const ms of marks(axis, Math.max(2, Math.floor(width / 76)))) {
    const x = Math.round(placeIn(field, axis, ms)) + 0.5;
    context.strokeStyle = palette.soft;
    context.beginPath();
    context.moveTo(x, field.top);
    context.lineTo(x, field.bottom);
    context.stroke();
    const text = ms === 0 ? "0" : duration(ms);
    const half = context.measureText(text).width / 2;
    const at = Math.min(field.right - half, Math.max(field.left + half, x));
    if (at - half < free) continue;
    free = at + half + 8;
    context.fillStyle = palette.dim;
    context.textAlign = "center";
    context.fillText(text, at, field.bottom + 5);
  }
}
