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

test("events of the pool read as sentences, also those with data that this page does not know", () => {
  const of = (kind: string, data: Record<string, unknown>) => whatOf({ kind, data });
  expect(of("pool.swept", { round: 7, objects: 1200, bytes: 3145728, reclaimed_bytes: 2097152 })).toBe(
    "1,200 copies dropped, 3 MiB; the disks got 2 MiB back",
  );
  expect(of("pool.sweep_held", { reason: "node 'n3' did not tell yet what it holds" })).toBe(
    "the sweep is held: node 'n3' did not tell yet what it holds",
  );
  expect(of("pool.sweep_allowed", { incarnation: 2 })).toBe("the sweep is allowed after the restore");
  expect(of("pool.swept", { rounds: 2 })).toBe("rounds 2");
});
