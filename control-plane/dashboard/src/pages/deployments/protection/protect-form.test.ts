import { expect, test } from "vitest";
import {
  emptyProtect,
  keepText,
  protectFieldOf,
  protectForm,
  protectMeantBy,
  protectOf,
  protectPatch,
} from "./protect-form.ts";

const before = { every: "15m", keep: { last: 3, hourly: 0, daily: 7, weekly: 0 } };

test("an empty form asks for no protection, and rules without a time ask for one", () => {
  expect(protectMeantBy(emptyProtect)).toEqual({ protect: undefined, unread: {} });
  expect(protectMeantBy({ ...emptyProtect, daily: "7" }).unread.every).toBe("Say how often, such as 15m.");
});

test("what was typed is read, and what cannot be is told at its field", () => {
  const typed = { ...emptyProtect, every: " 15 m", hourly: "24" };
  expect(protectMeantBy(typed)).toEqual({ protect: { every: "15m", keep: { hourly: 24 } }, unread: {} });
  const { unread } = protectMeantBy({ ...typed, every: "soon", weekly: "-1" });
  expect(Object.keys(unread).sort()).toEqual(["every", "weekly"]);
});

test("a patch has only what differs, and brings defaults back with null", () => {
  expect(protectPatch(protectForm(before), before)).toEqual({});
  expect(protectPatch({ ...protectForm(before), every: "1h", last: "" }, before)).toEqual({
    every: "1h",
    keep: { last: null },
  });
  expect(protectPatch({ ...emptyProtect, every: "1h", daily: "7" }, undefined)).toEqual({
    every: "1h",
    keep: { daily: 7 },
  });
});

test("a protection that this page does not know is none", () => {
  expect(protectOf({ protect: "later" })).toBeUndefined();
  expect(protectOf({})).toBeUndefined();
  expect(protectOf({ protect: before })).toBe(before);
});

test("the rules read as a sentence, and errors find their field", () => {
  expect(keepText({ last: 1, hourly: 0, daily: 0, weekly: 0 })).toBe("the newest");
  expect(keepText({ last: 3, hourly: 24, daily: 1, weekly: 0 })).toBe(
    "the newest 3, one of each of 24 hours, the newest of the last day",
  );
  expect(protectFieldOf("/protect/keep/daily")).toBe("daily");
  expect(protectFieldOf("/protect")).toBe("every");
  expect(protectFieldOf("/labels")).toBeUndefined();
});
