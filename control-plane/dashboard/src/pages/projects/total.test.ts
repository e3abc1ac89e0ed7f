import { expect, test } from "vitest";
import { totalOf } from "./total.ts";

test("things of all states are counted together, but deleted ones are not", () => {
  expect(totalOf({ running: 4, failed: 1, deleted: 7 })).toBe(5);
  expect(totalOf({})).toBe(0);
  expect(totalOf(undefined)).toBeUndefined();
});
