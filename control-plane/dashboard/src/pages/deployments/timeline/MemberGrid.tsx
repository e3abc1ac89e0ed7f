import { useCallback } from "react";
import { cellsFor } from "./cells.ts";
import { type Layout, Members } from "./Members.tsx";
import type { Track } from "./tracks.ts";
import type { Palette } from "./useCanvas.ts";

const standsOut = ({ phase }: Track) => phase === "failed" || phase === "late";

/** Many members: a cell for each, by number, in the colour of what it does now. */
export function MemberGrid({ tracks, now }: { tracks: readonly Track[]; now: number }) {
  const layout = useCallback(
    (width: number): Layout => {
      const { size, perLine, lines } = cellsFor(tracks.length, width);
      return {
        height: lines * size,
        perLine,
        box: (index) => ({
          x: (index % perLine) * size,
          y: Math.floor(index / perLine) * size,
          width: size - 1,
          height: size - 1,
        }),
        at: (x, y) => {
          const column = Math.floor(x / size);
          return column >= perLine ? -1 : Math.floor(y / size) * perLine + column;
        },
      };
    },
    [tracks.length],
  );
  const draw = useCallback(
    (context: CanvasRenderingContext2D, _width: number, palette: Palette, { box }: Layout) => {
      tracks.forEach((track, index) => {
        if (standsOut(track)) return;
        const { x, y, width, height } = box(index);
        context.fillStyle = track.phase === "ready" ? palette.calm : palette.phase[track.phase];
        context.fillRect(x, y, width, height);
      });
      // Members with a problem come last and are larger, with a hole, so that they are found without colours too.
      tracks.forEach((track, index) => {
        if (!standsOut(track)) return;
        const { x, y, width, height } = box(index);
        const more = width < 8 ? 1.5 : 0;
        context.fillStyle = palette.phase[track.phase];
        context.fillRect(x - more, y - more, width + 2 * more, height + 2 * more);
        const edge = (width + 2 * more) / 4;
        context.fillStyle = palette.surface;
        context.fillRect(x - more + edge, y - more + edge, width + 2 * (more - edge), height + 2 * (more - edge));
      });
    },
    [tracks],
  );
  return <Members tracks={tracks} now={now} label="Members by number" layout={layout} draw={draw} />;
}
