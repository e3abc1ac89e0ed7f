import { expect, test } from "vitest";
import { codeOf, wayBack } from "./way-back.ts";

test("the way back leads to a page of the dashboard, with its search part", () => {
  expect(wayBack("/instances?state=failed&q=web")).toBe("/instances?state=failed&q=web");
});

test.each([
  undefined,
  "",
  "https://elsewhere.example/",
  "//elsewhere.example/",
  "/\\elsewhere.example/",
  "javascript:alert(1)",
  "/a\n/b",
  "instances",
  "/sign-in?back=/x",
  ["/instances"],
])("what is not a path of ours leads to the overview: %j", (back) => expect(wayBack(back)).toBe("/"));

test("the code is taken out of the fragment", () => {
  expect(codeOf("#code=msl1_abc")).toBe("msl1_abc");
  expect(codeOf("#code=")).toBeUndefined();
  expect(codeOf("")).toBeUndefined();
  expect(codeOf("#main")).toBeUndefined();
});
