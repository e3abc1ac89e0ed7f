import { describe, expect, test } from "vitest";
import type { Instance } from "../../api/instances.ts";
import { explain, fits, problemsFirst } from "./state-words.ts";

const steps = { placed_at: null, disk_at: null, started_at: null };
const facts = (state: string, reason: string | null = null, more: object = {}) =>
  ({
    state,
    reason,
    ready_at: null,
    runtime: "libvirt",
    steps,
    last_reason: null,
    conditions: [],
    ...more,
  }) as unknown as Instance;

describe("a state in words", () => {
  test("a lost node leads to recovery, and nothing else starts the instance", () => {
    expect(explain(facts("failed", "node_lost")).act).toBe("recover");
    expect(fits("start", facts("failed", "node_lost"))).toBe(false);
    expect(fits("recover", facts("failed", "node_lost"))).toBe(true);
    expect(fits("recover", facts("failed", "no_capacity"))).toBe(false);
  });
  test("an instance of a silent node is not said to be off", () => {
    const { says, next } = explain(facts("unknown", "node_silent"));
    expect(says).toContain("not known whether it runs");
    expect(next).toContain("fences");
  });
  test("a running instance whose probe did not succeed in time draws attention and leads to the console", () => {
    expect(explain(facts("running", "not_ready"))).toMatchObject({ tone: "warn", act: "console" });
  });
  test("an instance that boots is not said to be ready", () => {
    expect(explain(facts("running"))).toMatchObject({ tone: "busy" });
    expect(explain(facts("running", null, { ready_at: "2026-11-29T12:00:00Z" }))).toMatchObject({ tone: "good" });
  });
  test("a stop does not claim that the guest was asked: its power may have been cut at once", () => {
    expect(explain(facts("stopping")).says).toBe("It is being turned off.");
  });
  test("a start says which step comes next", () => {
    expect(explain(facts("starting")).says).toContain("prepares its disk");
    expect(explain(facts("starting", null, { steps: { ...steps, disk_at: "x" } })).says).toContain("hypervisor");
  });
  test("one that stays off after a restart of its host says that it was asked to", () => {
    const { says, act } = explain(facts("stopped", "host_restarted"));
    expect(says).toContain("its deployment asks that it stays off");
    expect(act).toBe("start");
  });
  test("a reason and a state of a newer release still make a sentence", () => {
    expect(explain(facts("failed", "moon_phase"))).toMatchObject({ says: "It failed.", tone: "bad" });
    expect(explain(facts("dreaming"))).toMatchObject({ tone: "warn" });
  });
});

test("what cannot be in a snapshot is not offered for one", () => {
  expect(["failed", "pending", "unknown", "deleting"].filter((state) => fits("snapshot", facts(state)))).toEqual([]);
  expect(["running", "stopped", "paused"].filter((state) => fits("snapshot", facts(state)))).toHaveLength(3);
});

test("problems come first, and the rest keeps its order", () => {
  const rows = [
    facts("running", null, { id: "a" }),
    facts("paused", "disk_full", { id: "b" }),
    facts("stopped", "guest_ended", { id: "c" }),
    facts("failed", "no_capacity", { id: "d" }),
    facts("running", "not_ready", { id: "e" }),
    facts("running", null, { id: "f", conditions: [{ kind: "guest_silent", detail: "" }] }),
    facts("unknown", "node_silent", { id: "g" }),
  ];
  expect(problemsFirst(rows).map(({ id }) => id)).toEqual(["d", "g", "b", "e", "f", "a", "c"]);
});
