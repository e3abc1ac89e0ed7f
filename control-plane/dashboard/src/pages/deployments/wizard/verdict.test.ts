import { expect, test } from "vitest";
import { verdictOf } from "./verdict.ts";

test("it is good only if all members fit", () => {
  expect(verdictOf({ placed: 4, unplaced: 0 })).toEqual({ tone: "good", title: "All 4 fit." });
  expect(verdictOf({ placed: 1, unplaced: 0 }).title).toBe("It fits.");
});

test("it says that nothing starts if fewer fit than have to", () => {
  expect(verdictOf({ placed: 0, unplaced: 9 })).toMatchObject({ tone: "bad", title: "None fits." });
  expect(verdictOf({ placed: 3, unplaced: 6 }, 5).means).toBe("Nothing would start: at least 5 have to fit.");
});

test("it says what becomes of the rest if enough fit", () => {
  expect(verdictOf({ placed: 12, unplaced: 288 }, 3)).toEqual({
    tone: "warn",
    title: "12 of 300 fit.",
    means: "Those would start. The other 288 would fail with no_capacity; retry tries them again.",
  });
});
