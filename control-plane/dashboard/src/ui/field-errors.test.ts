import { expect, test } from "vitest";
import { ApiError } from "../api/client.ts";
import { refusalOf } from "./field-errors.ts";

const fieldOf = (pointer: string) => (pointer.startsWith("/dns") ? ("dns" as const) : undefined);
const refusal = (...errors: { pointer: string; detail: string }[]) =>
  new ApiError(422, { code: "invalid", detail: "no", errors: errors.map((each) => ({ code: "invalid", ...each })) });

test("two messages about one field stand there together, and nothing is said beside it", () => {
  const errors = [
    { pointer: "/dns/0", detail: "not an address" },
    { pointer: "/dns", detail: "at most 3, got 4" },
  ];
  expect(refusalOf(refusal(...errors), fieldOf)).toEqual({
    fields: { dns: "not an address; at most 3, got 4" },
    beside: undefined,
  });
});

test("what no field is for is shown beside the fields, with all the rest", () => {
  const error = refusal({ pointer: "/dns", detail: "a" }, { pointer: "/labels", detail: "b" });
  expect(refusalOf(error, fieldOf)).toEqual({ fields: { dns: "a" }, beside: error });
  const lost = ApiError.noAnswer();
  expect(refusalOf(lost, fieldOf)).toEqual({ fields: {}, beside: lost });
});

test("a taken name is told at the name", () => {
  const error = new ApiError(409, { code: "name_taken", detail: "the name 'web' is in use" });
  expect(refusalOf(error, fieldOf)).toEqual({ fields: { name: "the name 'web' is in use" }, beside: undefined });
});
