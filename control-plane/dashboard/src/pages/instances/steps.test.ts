import { describe, expect, test } from "vitest";
import type { Instance } from "../../api/instances.ts";
import { startLine } from "./steps.ts";

const at = (ms: number) => new Date(Date.parse("2026-11-29T12:00:00Z") + ms).toISOString();
const now = Date.parse(at(9_000));
const instance = (more: object) =>
  ({
    state: "running",
    boots: 1,
    created_at: at(0),
    ready_at: at(5_000),
    steps: { placed_at: at(10), disk_at: at(200), started_at: at(300) },
    ...more,
  }) as unknown as Instance;
const brief = (more: object) => startLine(instance(more), now).steps.map(({ state, tookMs }) => [state, tookMs]);

describe("the line of a start", () => {
  test("tells how long each step took, and all together", () => {
    expect(brief({})).toEqual([
      ["done", null],
      ["done", 10],
      ["done", 190],
      ["done", 100],
      ["done", 4700],
    ]);
    expect(startLine(instance({}), now)).toMatchObject({ totalMs: 5000, going: false });
  });
  test("grows while the guest boots", () => {
    const line = startLine(instance({ ready_at: null }), now);
    expect(line).toMatchObject({ totalMs: 9000, going: true });
    expect(line.steps.map(({ state }) => state)).toEqual(["done", "done", "done", "done", "now"]);
  });
  test("of an instance without a node is at its first step", () => {
    const steps = { placed_at: null, disk_at: null, started_at: null };
    expect(brief({ state: "pending", boots: 0, ready_at: null, steps }).map(([state]) => state)).toEqual([
      "done",
      "now",
      "ahead",
      "ahead",
      "ahead",
    ]);
  });
  test("does not count the time since the place was found when it starts again", () => {
    const later = { placed_at: at(-86_400_000), disk_at: at(100), started_at: at(400) };
    expect(brief({ boots: 3, created_at: at(-86_400_000), steps: later })).toEqual([
      ["untold", null],
      ["kept", null],
      ["done", 0],
      ["done", 300],
      ["done", 4600],
    ]);
    expect(brief({ boots: 3, steps: { ...later, requested_at: at(0) } })).toEqual([
      ["done", null],
      ["kept", null],
      ["done", 100],
      ["done", 300],
      ["done", 4600],
    ]);
  });
  test("of an instance that failed on the way shows what was not reached as not reached", () => {
    const steps = { placed_at: at(10), disk_at: at(200), started_at: null };
    expect(brief({ state: "failed", ready_at: null, steps }).slice(-2)).toEqual([
      ["ahead", null],
      ["ahead", null],
    ]);
  });
  test("does not say that a stopped instance was never ready", () => {
    expect(brief({ state: "stopped", ready_at: null }).at(-1)).toEqual(["untold", null]);
  });
});
