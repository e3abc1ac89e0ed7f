import { expect, test } from "vitest";
import { cellsFor } from "./cells.ts";

test("10,000 members fit onto a screen, each with a cell of its own", () => {
  for (const width of [320, 900, 2200]) {
    const { size, perLine, lines } = cellsFor(10_000, width);
    expect(perLine * lines).toBeGreaterThanOrEqual(10_000);
    expect(perLine * size).toBeLessThanOrEqual(width);
    expect(lines * size).toBeLessThanOrEqual(520);
  }
});

test("cells of few members do not grow without end", () => {
  expect(cellsFor(31, 900).size).toBe(20);
  expect(cellsFor(0, 900).lines).toBe(0);
});
