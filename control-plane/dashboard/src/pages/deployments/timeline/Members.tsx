/**
 * Members drawn on a canvas, one rectangle each. The pointer or the arrow keys choose one, whose card is shown; a click
 * or Enter opens it. For screen readers it is a list box whose one visible option is the chosen member.
 */
import { useNavigate } from "@tanstack/react-router";
import { type KeyboardEvent, type PointerEvent, useCallback, useId, useState } from "react";
import { searchOf } from "../../../api/scope.ts";
import classes from "./Timeline.module.css";
import { sayTrack, TrackCard } from "./TrackCard.tsx";
import type { Track } from "./tracks.ts";
import { type Palette, useCanvas } from "./useCanvas.ts";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** How members are laid out: where each is, which one is at a point, and how many one arrow up or down skips. */
export interface Layout {
  height: number;
  box: (index: number) => Box;
  at: (x: number, y: number) => number;
  perLine: number;
}

interface Props {
  tracks: readonly Track[];
  now: number;
  label: string;
  /** Keep these functions the same while nothing changes. */
  layout: (width: number) => Layout;
  draw: (context: CanvasRenderingContext2D, width: number, palette: Palette, layout: Layout) => void;
}

export function Members({ tracks, now, label, layout, draw }: Props) {
  const [chosen, setChosen] = useState<number>();
  const [focused, setFocused] = useState(false);
  const navigate = useNavigate();
  const id = useId();
  const paint = useCallback(
    (context: CanvasRenderingContext2D, width: number, palette: Palette) =>
      draw(context, width, palette, layout(width)),
    [draw, layout],
  );
  const { box, canvas, width, height } = useCanvas(
    paint,
    useCallback((wide: number) => layout(wide).height, [layout]),
  );
  const placed = layout(Math.max(1, width));
  const index = chosen === undefined ? undefined : Math.min(chosen, tracks.length - 1);
  const track = index === undefined ? undefined : tracks[index];
  const frame = index === undefined ? undefined : placed.box(index);

  const open = () => {
    if (track === undefined) return;
    void navigate({
      to: "/instances/$instance",
      params: { instance: track.member.id },
      search: searchOf(track.member.project),
    });
  };
  const onMove = (event: PointerEvent<HTMLDivElement>) => {
    const edge = event.currentTarget.getBoundingClientRect();
    const found = placed.at(event.clientX - edge.left, event.clientY - edge.top);
    setChosen(found >= 0 && found < tracks.length ? found : undefined);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const from = index ?? -1;
    const nextFailed = (step: 1 | -1) => {
      for (let at = from + step; at >= 0 && at < tracks.length; at += step) {
        const phase = tracks[at]?.phase;
        if (phase === "failed" || phase === "late") return at;
      }
      return index;
    };
    const moves: Record<string, number | undefined> = {
      ArrowRight: from + 1,
      ArrowLeft: from - 1,
      ArrowDown: index === undefined ? 0 : from + placed.perLine,
      ArrowUp: from - placed.perLine,
      Home: 0,
      End: tracks.length - 1,
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const to = event.key === "f" ? nextFailed(1) : event.key === "F" ? nextFailed(-1) : moves[event.key];
    if (to !== undefined) {
      setChosen(Math.max(0, Math.min(tracks.length - 1, to)));
    } else if (event.key === "Enter") open();
    else if (event.key === "Escape") setChosen(undefined);
    else return;
    event.preventDefault();
  };

  return (
    <div
      ref={box}
      className={classes.members}
      role="listbox"
      aria-label={`${label}. Arrows choose a member, F the next one that failed, Enter opens it.`}
      aria-activedescendant={track === undefined ? undefined : id}
      tabIndex={0}
      style={{ cursor: track === undefined ? undefined : "pointer" }}
      onPointerMove={onMove}
      onPointerLeave={() => focused || setChosen(undefined)}
      onClick={open}
      onKeyDown={onKeyDown}
      onFocus={() => setFocused(true)}
      onBlur={() => {
        setFocused(false);
        setChosen(undefined);
      }}
    >
      <canvas ref={canvas} style={{ width, height }} aria-hidden />
      {track !== undefined && frame !== undefined && (
        <>
          <div
            className={classes.mark}
            style={{ left: frame.x - 2, top: frame.y - 2, width: frame.width + 4, height: frame.height + 4 }}
          />
          <div
            className={classes.float}
            aria-hidden
            style={{
              top: frame.y + frame.height + 6,
              // Always towards the inside, and at the end of a row, where it hides the least.
              ...(frame.x + frame.width > width / 2
                ? { right: Math.max(0, width - frame.x - frame.width) }
                : { left: frame.x }),
            }}
          >
            <TrackCard track={track} now={now} />
          </div>
        </>
      )}
      <div
        id={id}
        role="option"
        aria-selected={track !== undefined}
        aria-posinset={(index ?? 0) + 1}
        aria-setsize={tracks.length}
        className={classes.hidden}
        tabIndex={-1}
      >
        {track === undefined ? "No member is chosen" : sayTrack(track, now)}
      </div>
    </div>
  );
}
