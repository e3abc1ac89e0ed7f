import { expect, test } from "vitest";
import { keysOf } from "./type-text.ts";

test("capitals and signs above others need shift, all else does not", () => {
  const { keys, missing } = keysOf("aA1!-_\t\r\n");
  expect(keys.map(({ shift }) => shift)).toEqual([false, true, false, true, false, true, false, false]);
  expect(keys.map(({ keysym }) => keysym)).toEqual([0x61, 0x41, 0x31, 0x21, 0x2d, 0x5f, 0xff09, 0xff0d]);
  expect(missing).toEqual([]);
});

test("letters that the keyboard does not have are named once", () => {
  expect(keysOf("zoë, zoë €")).toEqual({ keys: keysOf("zo, zo ").keys, missing: ["ë", "€"] });
});
