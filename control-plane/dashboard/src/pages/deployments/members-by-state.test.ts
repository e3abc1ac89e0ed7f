import { expect, test } from "vitest";
import { membersByState, sayShares } from "./members-by-state.ts";

test("ready members come first and failed ones last, and states without members are left out", () => {
  const shares = membersByState({ counts: { failed: 2, running: 10, stopped: 0 }, ready: 7 });
  expect(sayShares(shares)).toBe("7 ready, 3 not ready yet, 2 failed");
  expect(shares.map(({ tone }) => tone)).toEqual(["good", "busy", "bad"]);
});

test("a state that this version does not know is shown and draws attention", () => {
  expect(membersByState({ counts: { dreaming: 1 }, ready: 0 })).toEqual([
    { word: "dreaming", members: 1, tone: "warn" },
  ]);
});

test("deleted members are not counted", () => {
  expect(sayShares(membersByState({ counts: { deleted: 3 }, ready: 0 }))).toBe("no members");
});
