import { useEffect } from "react";

let opener: (() => void) | undefined;

/** Opens the command palette, from wherever. */
export function openPalette(): void {
  opener?.();
}

/** The palette tells how it is opened. */
export function usePaletteOpener(open: () => void): void {
  useEffect(() => {
    opener = open;
    return () => {
      opener = undefined;
    };
  }, [open]);
}
