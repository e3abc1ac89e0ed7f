import { useComputedColorScheme } from "@mantine/core";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import type { Phase, Step } from "./tracks.ts";

/** The colours of the drawings, which follow the theme. */
export interface Palette {
  text: string;
  dim: string;
  line: string;
  soft: string;
  surface: string;
  /** For what is well in a crowd, so that the rest stands out. */
  calm: string;
  font: string;
  phase: Record<Phase, string>;
  step: Record<Step, string>;
}

export function paletteOf(element: Element): Palette {
  const style = getComputedStyle(element);
  const read = (name: string) => style.getPropertyValue(name).trim();
  const mix = (colour: string, share: number) => `color-mix(in srgb, ${read(colour)} ${share}%, ${read("--surface")})`;
  // The phases of a start go from pale to strong, so that their order is seen without the hue.
  const disk = mix("--state-busy", 38);
  const starting = mix("--state-busy", 66);
  const booting = read("--state-busy");
  return {
    text: read("--mantine-color-text"),
    dim: read("--mantine-color-dimmed"),
    line: read("--line"),
    soft: read("--line-soft"),
    surface: read("--surface"),
    calm: mix("--state-good", 58),
    font: style.fontFamily,
    phase: {
      waiting: mix("--state-idle", 32),
      disk,
      starting,
      booting,
      ready: read("--state-good"),
      late: read("--state-warn"),
      failed: read("--state-bad"),
      other: mix("--state-idle", 55),
    },
    step: { placed: disk, disk: starting, started: booting, ready: read("--state-good") },
  };
}

export type Draw = (context: CanvasRenderingContext2D, width: number, palette: Palette) => void;

/**
 * A canvas as wide as the box around it, sharp on every screen, drawn again when `draw`, the size or the theme changes.
 * Give `box` to the element around it and `canvas` to the canvas.
 */
export function useCanvas(draw: Draw, height: (width: number) => number) {
  const [element, box] = useState<HTMLDivElement | null>(null);
  const width = useWidth(element);
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useComputedColorScheme();
  const tall = width > 0 ? height(width) : 0;
  // biome-ignore lint/correctness/useExhaustiveDependencies: another scheme changes what the palette reads
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || width === 0) return;
    const ratio = devicePixelRatio || 1;
    context.canvas.width = Math.round(width * ratio);
    context.canvas.height = Math.round(tall * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, tall);
    draw(context, width, paletteOf(context.canvas));
  }, [draw, width, tall, scheme]);
  return { box, canvas, width, height: tall };
}

/** How wide an element is; measured before the first paint, so that nothing jumps. */
function useWidth(element: HTMLElement | null): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    if (element === null) return undefined;
    const measure = () => setWidth(element.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [element]);
  return width;
}
