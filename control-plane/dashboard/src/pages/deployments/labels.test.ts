import { expect, test } from "vitest";
import { labelsOf, labelTexts } from "./labels.ts";

test("labels are read and written as key=value, and a value may have an equals sign", () => {
  expect(labelsOf(["tier=web", "query = a=b", "bare"])).toEqual({ tier: "web", query: "a=b", bare: "" });
  expect(labelTexts({ b: "2", a: "" })).toEqual(["a=", "b=2"]);
});
