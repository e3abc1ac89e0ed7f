import { describe, expect, test } from "vitest";
import { commandFor, nameProblem, pauseText, timesOf, whyFailed } from "./snapshot-words.ts";

test.each([
  [0.023, "23 µs"],
  [0, "0 µs"],
  [1.25, "1.3 ms"],
  [480.4, "480 ms"],
  [null, "–"],
])("a pause of %s ms reads %s", (ms, text) => expect(pauseText(ms)).toBe(text));

test("times are told from the request to the cut, and from the cut until it is durable", () => {
  const created_at = "2026-11-29T12:00:00Z";
  const cut_at = "2026-11-29T12:00:00.150Z";
  expect(timesOf({ created_at, cut_at, durable_at: "2026-11-29T12:00:02.150Z" })).toEqual({ cutMs: 150, saveMs: 2000 });
  expect(timesOf({ created_at, cut_at: null, durable_at: null })).toEqual({ cutMs: null, saveMs: null });
});

test("the command line says the same as the form, and nothing where it cannot", () => {
  expect(commandFor("web", "", undefined)).toBe("muster snapshot create web");
  expect(commandFor("web", "monday", 200)).toBe("muster snapshot create web monday --max-pause 200ms");
  expect(commandFor("web", "", undefined, "filesystem")).toBe("muster snapshot create web --consistency filesystem");
  expect(commandFor(undefined, "monday", 200)).toBeNull();
});

describe("a name", () => {
  test.each(["", "a", "web-2", "m".repeat(55)])("may be %j", (name) => expect(nameProblem(name)).toBeNull());
  test.each(["2web", "Web", "a.b", "-a", "m".repeat(56)])("may not be %j", (name) =>
    expect(nameProblem(name)).not.toBeNull(),
  );
});

test("a reason of a newer release still leads somewhere", () => {
  expect(whyFailed("moon_phase").next).not.toBe("");
  expect(whyFailed("freeze_failed").says).toContain("frozen");
  expect(whyFailed("hold_expired").next).toContain("longer pause");
});
