import { describe, expect, test } from "vitest";
import type { Chunks } from "../../api/versions.ts";
import { bootWords, cellAt, cellsOfExtents, describeCell, gridOf, heat, mostCells, moveCell, totals } from "./cells.ts";

const kib = 1024;
const chunk = 256 * kib;

describe("cells from extents", () => {
  test("know which part of them is zeros, and the last one may be short", () => {
    const size = 3 * chunk + 64 * kib;
    const cells = cellsOfExtents({ size_bytes: size, chunk_bytes: chunk }, [
      { offset_bytes: chunk / 2, length_bytes: chunk },
      { offset_bytes: 3 * chunk, length_bytes: 64 * kib },
    ]);
    expect(cells).toMatchObject({ count: 4, step: 1, zero: [0.5, 0.5, 1, 0] });
    expect(totals(cells, size)).toEqual({
      zero: 2 * chunk,
      shared: null,
      own: chunk + 64 * kib,
      unknown: 0,
      read: null,
    });
  });

  test("are no more than fit, however large the disk is", () => {
    const size = 16 * 2 ** 40;
    const cells = cellsOfExtents({ size_bytes: size, chunk_bytes: chunk }, [{ offset_bytes: 0, length_bytes: size }]);
    expect(cells.zero.length).toBeLessThanOrEqual(mostCells);
    expect(cells.zero.every((zero) => zero === 0)).toBe(true);
  });

  test("end where the disk ends, even if an extent does not", () => {
    const cells = cellsOfExtents({ size_bytes: chunk, chunk_bytes: chunk }, [
      { offset_bytes: 0, length_bytes: 2 * chunk },
    ]);
    expect(cells.zero).toEqual([0]);
  });
});

describe("a cell in words", () => {
  const chunks: Chunks = {
    chunk_bytes: chunk,
    count: 8,
    step: 2,
    zero: [1, 0, 0.5, 0],
    shared: [0, 1, 0.25, 0],
    boot_order: [null, 0, 0.5, null],
    boot_chunks: 3,
    boots: 4,
    boots_of: "one",
  };
  const size = 8 * chunk;
  test.each([
    [0, "0 KiB to 512 KiB (chunks 0 to 1): zeros"],
    [
      1,
      "512 KiB to 1 MiB (chunks 2 to 3): data, shared with the parent, first read at the very beginning of the last boots",
    ],
    [
      2,
      "1 MiB to 1.5 MiB (chunks 4 to 5): 50% data, the rest zeros, 50% of it shared with the parent, first read after 50% of the reads of the last boots",
    ],
    [3, "1.5 MiB to 2 MiB (chunks 6 to 7): data, not in the parent, not read by the last boots"],
  ])("%s says what it holds", (cell, text) => expect(describeCell(chunks, size, cell)).toBe(text));

  test("tells neighbours apart on a large disk", () => {
    const many: Chunks = { ...chunks, count: 8192, step: 1, zero: Array(8192).fill(1), shared: null, boot_order: null };
    expect(describeCell(many, 8192 * chunk, 4075)).toBe("1,018.75 MiB to 1,019 MiB (chunk 4,075): zeros");
  });

  test("says so where nothing is known", () => {
    const some: Chunks = { ...chunks, zero: [null, 0, 0, 0], boot_order: null };
    expect(describeCell(some, size, 0)).toBe("0 KiB to 512 KiB (chunks 0 to 1): not known");
    expect(totals(some, size)).toMatchObject({ zero: 0, unknown: 2 * chunk });
  });

  test.each([
    [{}, "3 of 8 chunks were read by the last 4 boots, on average."],
    [{ boots: 1 }, "3 of 8 chunks were read by the last boot."],
    [
      { boots_of: "two" },
      "3 of 8 chunks were read by the last 4 boots, on average. They are boots of the version that this one was made from: no boot of this one is known yet.",
    ],
  ])("says which boots its order is of: %o", (some, text) =>
    expect(bootWords({ ...chunks, ...some }, "one")).toBe(text),
  );

  test("the kinds add up to the disk", () => {
    const { zero, shared, own } = totals(chunks, size);
    expect(zero + (shared ?? 0) + own).toBe(size);
  });
});

describe("the grid", () => {
  const grid = gridOf(1000, 400, 300);
  test("has room for all cells", () => {
    expect(grid.columns * grid.rows).toBeGreaterThanOrEqual(1000);
    expect(grid.columns * grid.pitch).toBeLessThanOrEqual(400);
  });
  test("finds the cell under the pointer", () => {
    expect(cellAt(grid, 1000, 0, 0)).toBe(0);
    expect(cellAt(grid, 1000, grid.pitch * 2.5, grid.pitch * 1.5)).toBe(grid.columns + 2);
    expect(cellAt(grid, 1000, grid.columns * grid.pitch + 1, 0)).toBeUndefined();
    expect(cellAt(grid, 1000, 0, grid.height + 1)).toBeUndefined();
  });
  test("is walked by keys, and ends at its ends", () => {
    expect(moveCell(grid, 1000, 5, "ArrowRight")).toBe(6);
    expect(moveCell(grid, 1000, 5, "ArrowDown")).toBe(5 + grid.columns);
    expect(moveCell(grid, 1000, 0, "ArrowLeft")).toBe(0);
    expect(moveCell(grid, 1000, 5, "End")).toBe(999);
    expect(moveCell(grid, 1000, 5, "x")).toBeUndefined();
  });
});

test("the heat scale begins bright and ends dark", () => {
  const light = (colour: readonly number[]) => colour.reduce((sum, part) => sum + part, 0);
  expect(light(heat(0))).toBeGreaterThan(light(heat(0.5)));
  expect(light(heat(0.5))).toBeGreaterThan(light(heat(1)));
});
