import { expect, test } from "vitest";
import { patchOf, rowProblem, rowsOf } from "./label-edits.ts";

const row = (id: number, key: string, value = "") => ({ id, key, value });

test("a patch names only what changes, and null takes a label away", () => {
  const before = { tier: "web", old: "1", same: "x" };
  expect(patchOf(before, [row(0, "tier", "db"), row(1, "same", "x"), row(2, " new ", "y"), row(3, "")])).toEqual({
    tier: "db",
    old: null,
    new: "y",
  });
  expect(patchOf(before, rowsOf(before))).toEqual({});
});

test("a key must be there, short enough and unlike the others", () => {
  const rows = [row(0, "a"), row(1, "a "), row(2, "", "value"), row(3, ""), row(4, "k".repeat(129))];
  expect(rows.map((each) => rowProblem(each, rows) !== null)).toEqual([false, true, true, false, true]);
});
