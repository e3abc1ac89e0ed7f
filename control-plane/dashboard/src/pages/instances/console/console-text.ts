/** What the view of a console computes. Pure; tested in console-text.test.ts. */

/**
 * What was added to a log between two readings of its end, each of which is a part of the whole. Null if that cannot be
 * told: then the later reading has to be shown from its beginning.
 */
export function addedText(before: string, after: string): string | null {
  if (before === "") return after;
  if (after.startsWith(before)) return after.slice(before.length);
  // The beginning has moved out of sight: look for where the end of the reading before is now.
  const end = before.slice(-2048);
  const at = after.lastIndexOf(end);
  return at < 0 ? null : after.slice(at + end.length);
}

/** A line as it was printed, which may be wrapped over some rows of the screen. */
export interface ConsoleLine {
  /** The first row that it is on. */
  row: number;
  text: string;
}

export interface Match {
  row: number;
  column: number;
  length: number;
}

const mostMatches = 1000;

/** Where a text is found, without regard to case. Lines are wrapped at `columns`. */
export function findText(lines: Iterable<ConsoleLine>, text: string, columns: number): Match[] {
  const wanted = text.toLowerCase();
  const matches: Match[] = [];
  if (wanted === "") return matches;
  for (const line of lines) {
    const where = line.text.toLowerCase();
    for (let at = where.indexOf(wanted); at >= 0; at = where.indexOf(wanted, at + wanted.length)) {
      matches.push({ row: line.row + Math.floor(at / columns), column: at % columns, length: wanted.length });
      if (matches.length === mostMatches) return matches;
    }
  }
  return matches;
}

/** The number of matches in words. */
export function matchesText(found: number, current: number): string {
  if (found === 0) return "not found";
  return `${current + 1} of ${found === mostMatches ? `${mostMatches}+` : found}`;
}

/**
 * Modes of a terminal that a log must not switch on: reports of the mouse and of focus, which would take the mouse away
 * from its reader, and the second screen, which would hide what was printed before.
 */
const refusedModes = new Set([9, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1049, 2004]);

export function isRefusedMode(params: readonly (number | number[])[]): boolean {
  return params.some((param) => typeof param === "number" && refusedModes.has(param));
}
