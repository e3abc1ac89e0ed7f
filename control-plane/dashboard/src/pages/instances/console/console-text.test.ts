import { describe, expect, test } from "vitest";
import { addedText, findText, isRefusedMode, matchesText } from "./console-text.ts";

describe("between two readings of the end of a log", () => {
  test("what was added is told", () => {
    expect(addedText("", "boot\n")).toBe("boot\n");
    expect(addedText("boot\n", "boot\nready\n")).toBe("ready\n");
    expect(addedText("boot\n", "boot\n")).toBe("");
  });
  test("that also holds when the beginning has moved out of sight", () => {
    const line = (number: number) => `line ${number} of a long log\n`;
    const all = Array.from({ length: 500 }, (_, number) => line(number)).join("");
    const before = all.slice(0, 8000).slice(-4000);
    const after = all.slice(0, 9000).slice(-4000);
    expect(addedText(before, after)).toBe(all.slice(8000, 9000));
  });
  test("a log that began anew is shown from its beginning", () => {
    expect(addedText("boot 1\nready\n", "boot 2\n")).toBeNull();
  });
});

describe("looking for a text", () => {
  const lines = [
    { row: 0, text: "Linux version 6.1" },
    { row: 1, text: `${"x".repeat(78)}Error: no ERROR` },
    { row: 3, text: "aaaa" },
  ];
  test("finds it in any case, and on the row to which a long line is wrapped", () => {
    expect(findText(lines, "error", 80)).toEqual([
      { row: 1, column: 78, length: 5 },
      { row: 2, column: 8, length: 5 },
    ]);
  });
  test("counts what does not overlap, and nothing for no text", () => {
    expect(findText(lines, "aa", 80)).toHaveLength(2);
    expect(findText(lines, "", 80)).toEqual([]);
  });
  test("says how many there are", () => {
    expect(matchesText(0, 0)).toBe("not found");
    expect(matchesText(7, 2)).toBe("3 of 7");
    expect(matchesText(1000, 0)).toBe("1 of 1000+");
  });
});

test("a log cannot take the mouse or hide what was printed before", () => {
  expect([[1049], [1000], [25, 1006]].map(isRefusedMode)).toEqual([true, true, true]);
  expect([[25], [7], []].map(isRefusedMode)).toEqual([false, false, false]);
});
