import { expect, test } from "vitest";
import { whatOf } from "./what.ts";

const said = (data: Record<string, unknown>) => whatOf({ data });

test("an event reads as its state and what else it tells, without ids", () => {
  expect(said({ state: "running", ready: true })).toBe("running, ready");
  expect(said({ state: "starting", ready: false })).toBe("starting");
  expect(said({ state: "failed", reason: "no_capacity" })).toBe("failed (no_capacity)");
  expect(said({ state: "running", reason: null })).toBe("running");
  expect(said({ image: "01a227ac-0127-7541-941c-02417dded5f9", number: 1, size_bytes: 67108864 })).toBe(
    "number 1, size 64 MiB",
  );
  expect(said({ kind: "deployment.create", state: "pending" })).toBe("Create deployment, pending");
  expect(said({})).toBe("");
});
