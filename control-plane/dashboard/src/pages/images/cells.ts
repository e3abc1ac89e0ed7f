/** What the chunk map computes: cells from extents, where they lie, what they mean in words. Pure; see cells.test.ts. */
import type { Chunks } from "../../api/versions.ts";
import { count, percent } from "../../ui/format.ts";

/** No more cells than this are drawn. */
export const mostCells = 16_384;

/** The cells of a version of which only the ranges with data are known. */
export function cellsOfExtents(
  version: { size_bytes: number; chunk_bytes: number },
  extents: readonly { offset_bytes: number; length_bytes: number }[],
): Chunks {
  const { size_bytes, chunk_bytes } = version;
  const chunks = Math.ceil(size_bytes / chunk_bytes);
  const step = Math.max(1, Math.ceil(chunks / mostCells));
  const cellBytes = step * chunk_bytes;
  const cells = Math.ceil(chunks / step);
  const data = new Float64Array(cells);
  for (const { offset_bytes, length_bytes } of extents) {
    const end = Math.min(size_bytes, offset_bytes + length_bytes);
    for (let at = offset_bytes; at < end; ) {
      const cell = Math.floor(at / cellBytes);
      const next = Math.min(end, (cell + 1) * cellBytes);
      data[cell] = (data[cell] ?? 0) + next - at;
      at = next;
    }
  }
  const zero = Array.from(data, (filled, cell) => {
    const length = Math.min(cellBytes, size_bytes - cell * cellBytes);
    return length > 0 ? 1 - filled / length : 1;
  });
  return {
    chunk_bytes,
    count: chunks,
    step,
    zero,
    shared: null,
    boot_order: null,
    boot_chunks: 0,
    boots: 0,
    boots_of: null,
  };
}

/** The bytes of a cell; the last one may be short. */
export function cellRange(chunks: Chunks, size: number, cell: number): { begin: number; end: number } {
  const length = chunks.step * chunks.chunk_bytes;
  return { begin: cell * length, end: Math.min(size, (cell + 1) * length) };
}

export interface Totals {
  zero: number;
  /** Data that the parent has as well; null if that is not known. */
  shared: number | null;
  /** All other data. */
  own: number;
  /** Cells of which nothing is known. */
  unknown: number;
  /** Data in cells that the last boots read; null if that is not known. */
  read: number | null;
}

/** How many bytes there are of each kind. */
export function totals(chunks: Chunks, size: number): Totals {
  const sum: Totals = {
    zero: 0,
    shared: chunks.shared === null ? null : 0,
    own: 0,
    unknown: 0,
    read: chunks.boot_order === null ? null : 0,
  };
  chunks.zero.forEach((zero, cell) => {
    const { begin, end } = cellRange(chunks, size, cell);
    const length = end - begin;
    if (zero === null) {
      sum.unknown += length;
      return;
    }
    const shared = sharedPart(chunks, cell) * length;
    sum.zero += zero * length;
    if (sum.shared !== null) sum.shared += shared;
    sum.own += (1 - zero) * length - shared;
    const order = chunks.boot_order?.[cell];
    if (sum.read !== null && order !== null && order !== undefined) sum.read += (1 - zero) * length;
  });
  return sum;
}

/** The part of a cell that is data which the parent has as well. */
export function sharedPart(chunks: Chunks, cell: number): number {
  return Math.min(chunks.shared?.[cell] ?? 0, 1 - (chunks.zero[cell] ?? 0));
}

/** A cell in words, for the hint and for screen readers. */
export function describeCell(chunks: Chunks, size: number, cell: number): string {
  const { begin, end } = cellRange(chunks, size, cell);
  const first = cell * chunks.step;
  const last = Math.min(chunks.count, first + chunks.step) - 1;
  const which = first === last ? `chunk ${count(first)}` : `chunks ${count(first)} to ${count(last)}`;
  const zero = chunks.zero[cell] ?? null;
  const shared = sharedPart(chunks, cell);
  const words: string[] = [];
  if (zero === null) words.push("not known");
  else if (zero >= 1) words.push("zeros");
  else if (zero > 0) words.push(`${percent(1 - zero, 1)} data, the rest zeros`);
  else words.push("data");
  if (zero !== null && zero < 1 && chunks.shared !== null && chunks.shared[cell] !== null) {
    const part = shared / (1 - zero);
    if (part >= 1) words.push("shared with the parent");
    else if (part > 0) words.push(`${percent(part, 1)} of it shared with the parent`);
    else words.push("not in the parent");
  }
  const order = chunks.boot_order?.[cell];
  if (chunks.boot_order !== null && zero !== 1) {
    if (order === null || order === undefined) words.push("not read by the last boots");
    else words.push(`first read ${orderWords(order)} of the last boots`);
  }
  return `${offset(begin)} to ${offset(end)} (${which}): ${words.join(", ")}`;
}

/** Which boots the order of the cells is made from. */
export function bootWords(chunks: Chunks, version: string): string {
  const which = chunks.boots === 1 ? "the last boot" : `the last ${count(chunks.boots)} boots, on average`;
  const read = `${count(chunks.boot_chunks)} of ${count(chunks.count)} chunks were read by ${which}.`;
  if (chunks.boots_of === version) return read;
  return `${read} They are boots of the version that this one was made from: no boot of this one is known yet.`;
}

/** A place on a disk, without rounding two of them to one: `1,018.75 MiB`. */
function offset(at: number): string {
  const [unit, length] = at >= 2 ** 20 ? ["MiB", 2 ** 20] : ["KiB", 2 ** 10];
  return `${(at / length).toLocaleString("en-US", { maximumFractionDigits: 2 })} ${unit}`;
}

function orderWords(order: number): string {
  if (order <= 0.02) return "at the very beginning";
  if (order >= 0.98) return "at the end";
  return `after ${Math.round(100 * order)}% of the reads`;
}

export interface Grid {
  columns: number;
  rows: number;
  /** Edge of a cell with its gap, pixels. */
  pitch: number;
  gap: number;
  height: number;
}

/** Cells as large as fit, from 4 to 16 pixels, so that the map is not much higher than `height` where it can be helped. */
export function gridOf(cells: number, width: number, height: number): Grid {
  const pitch = Math.max(4, Math.min(16, Math.floor(Math.sqrt((width * height) / Math.max(1, cells)))));
  const columns = Math.max(1, Math.floor(width / pitch));
  const rows = Math.ceil(cells / columns);
  return { columns, rows, pitch, gap: pitch >= 6 ? 1 : 0, height: rows * pitch };
}

/** The cell at a point, if there is one. */
export function cellAt(grid: Grid, cells: number, x: number, y: number): number | undefined {
  const column = Math.floor(x / grid.pitch);
  const row = Math.floor(y / grid.pitch);
  if (x < 0 || y < 0 || column >= grid.columns) return undefined;
  const cell = row * grid.columns + column;
  return cell < cells ? cell : undefined;
}

/** The cell that a key leads to; undefined for keys that do not move. */
export function moveCell(grid: Grid, cells: number, cell: number, key: string): number | undefined {
  const steps: Record<string, number> = {
    ArrowRight: cell + 1,
    ArrowLeft: cell - 1,
    ArrowDown: cell + grid.columns,
    ArrowUp: cell - grid.columns,
    PageDown: cell + 10 * grid.columns,
    PageUp: cell - 10 * grid.columns,
    Home: 0,
    End: cells - 1,
  };
  const next = steps[key];
  return next === undefined ? undefined : Math.max(0, Math.min(cells - 1, next));
}

type Rgb = readonly [number, number, number];

/** A colour between two, by a part from 0 to 1. */
export function mix(from: Rgb, to: Rgb, part: number): Rgb {
  const at = Math.max(0, Math.min(1, part));
  return [0, 1, 2].map((n) => Math.round((from[n] ?? 0) + ((to[n] ?? 0) - (from[n] ?? 0)) * at)) as unknown as Rgb;
}

/** `#1f6fd0` as numbers. */
export function rgb(hex: string): Rgb {
  const value = Number.parseInt(hex.replace("#", ""), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

/** From what is read first to what is read last. */
const heatStops: readonly Rgb[] = ["#ffd166", "#f2790f", "#c2255c", "#4a2fa0"].map(rgb);

export function heat(order: number): Rgb {
  const at = Math.max(0, Math.min(1, order)) * (heatStops.length - 1);
  const stop = Math.min(heatStops.length - 2, Math.floor(at));
  return mix(heatStops[stop] as Rgb, heatStops[stop + 1] as Rgb, at - stop);
}

export const css = ([r, g, b]: Rgb): string => `rgb(${r},${g},${b})`;

/** The scale as a gradient for the legend. */
export const heatGradient = `linear-gradient(to right, ${heatStops.map(css).join(", ")})`;
