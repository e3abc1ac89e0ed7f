import { useComputedColorScheme } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import type { Chunks } from "../../api/versions.ts";
import classes from "./ChunkGrid.module.css";
import { cellAt, css, describeCell, type Grid, gridOf, heat, mix, moveCell, rgb, sharedPart } from "./cells.ts";

export type ChunkView = "content" | "boots";

/** The map is made about this high where the number of cells allows it, pixels. */
const heightWanted = 420;

interface Props {
  chunks: Chunks;
  size: number;
  view: ChunkView;
}

/** The cells of a version, drawn on a canvas. The pointer and the arrow keys tell what a cell is. */
export function ChunkGrid({ chunks, size, view }: Props) {
  const { ref, width } = useElementSize();
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useComputedColorScheme("light", { getInitialValueInEffect: false });
  const [cursor, setCursor] = useState<number>();
  const cells = chunks.zero.length;
  const grid = gridOf(cells, width, heightWanted);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the grid is made of width and cells; a scheme has its colours
  useEffect(() => {
    if (canvas.current !== null && width > 0) draw(canvas.current, chunks, grid, view);
  }, [chunks, view, width, scheme]);

  const onKeyDown = (event: KeyboardEvent) => {
    const next = moveCell(grid, cells, cursor ?? 0, event.key);
    if (next === undefined) return;
    event.preventDefault();
    setCursor(cursor === undefined ? 0 : next);
  };
  const column = cursor === undefined ? 0 : cursor % grid.columns;
  const row = cursor === undefined ? 0 : Math.floor(cursor / grid.columns);
  const words = cursor === undefined ? undefined : describeCell(chunks, size, cursor);
  return (
    <div>
      <div
        ref={ref}
        className={classes.map}
        style={{ height: grid.height }}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys walk the cells
        tabIndex={0}
        role="application"
        aria-label="Chunk map. Arrow keys walk the cells."
        onKeyDown={onKeyDown}
        onFocus={() => setCursor((before) => before ?? 0)}
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          setCursor(cellAt(grid, cells, event.clientX - box.left, event.clientY - box.top));
        }}
        onPointerLeave={() => setCursor(undefined)}
      >
        <canvas ref={canvas} className={classes.canvas} />
        {cursor !== undefined && (
          <div
            className={classes.cursor}
            style={{ left: column * grid.pitch - 1, top: row * grid.pitch - 1, width: grid.pitch, height: grid.pitch }}
          />
        )}
      </div>
      <output className={classes.words} aria-live="polite">
        {words ?? "Point at a cell, or walk with the arrow keys, to read what it is."}
      </output>
    </div>
  );
}

function draw(canvas: HTMLCanvasElement, chunks: Chunks, grid: Grid, view: ChunkView): void {
  const scale = window.devicePixelRatio || 1;
  const width = grid.columns * grid.pitch;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(grid.height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${grid.height}px`;
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const colour = (name: string) => rgb(style.getPropertyValue(name).trim());
  const zeros = colour("--line-soft");
  const own = colour("--state-busy");
  const shared = colour("--state-good");
  const unread = mix(colour("--surface"), colour("--state-idle"), 0.45);
  const edge = grid.pitch - grid.gap;
  chunks.zero.forEach((zero, cell) => {
    const left = (cell % grid.columns) * grid.pitch;
    const top = Math.floor(cell / grid.columns) * grid.pitch;
    if (zero === null) {
      context.strokeStyle = css(unread);
      context.strokeRect(left + 0.5, top + 0.5, edge - 1, edge - 1);
      return;
    }
    const data = 1 - zero;
    let full = own;
    if (view === "content") {
      if (data > 0) full = mix(own, shared, sharedPart(chunks, cell) / data);
    } else {
      const order = chunks.boot_order?.[cell];
      full = order === null || order === undefined ? unread : heat(order);
    }
    // A cell with little data is still seen.
    context.fillStyle = css(data <= 0 ? zeros : mix(zeros, full, 0.25 + 0.75 * data));
    context.fillRect(left, top, edge, edge);
  });
}
