/** How many cells of which size show all members in a box of a width. Pure; tested in cells.test.ts. */
export function cellsFor(members: number, width: number): { size: number; perLine: number; lines: number } {
  const wantedHeight = 240;
  const size = Math.max(4, Math.min(20, Math.floor(Math.sqrt((width * wantedHeight) / Math.max(1, members)))));
  const perLine = Math.max(1, Math.floor(width / size));
  return { size, perLine, lines: Math.ceil(members / perLine) };
}
