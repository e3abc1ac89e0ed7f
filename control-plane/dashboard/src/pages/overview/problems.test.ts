import { describe, expect, test } from "vitest";
import type { Pool } from "../../api/pools.ts";
import type { Summary } from "../../api/summary.ts";
import { wellPool } from "../pool/fixtures.ts";
import { shownProblems } from "./problems.ts";

const summary = (problems: Summary["problems"], more: Partial<Summary> = {}) =>
  ({ problems, ...more }) as unknown as Summary;

describe("problems", () => {
  test("read as sentences with the right number", () => {
    const [one, many] = shownProblems(
      summary([
        { kind: "node_silent", count: 1, detail: "" },
        { kind: "instance_failed", count: 1200, detail: "" },
      ]),
      true,
    );
    expect(one?.what).toBe("1 node is silent, so what runs there is unknown");
    expect(many?.what).toBe("1,200 instances failed");
  });

  test("lead to the list of what has them", () => {
    const [line] = shownProblems(summary([{ kind: "instance_paused", count: 3, detail: "" }]), true);
    expect(line).toMatchObject({ to: "/instances", search: { state: ["paused"] } });
  });

  test("that this page does not know keep the words of the API", () => {
    const [line] = shownProblems(summary([{ kind: "moon_full", count: 1, detail: "the moon is full" }]), true);
    expect(line).toMatchObject({ what: "The moon is full", to: "/events" });
  });

  test("tell tenants nothing that only operators can do", () => {
    const [line] = shownProblems(summary([{ kind: "instance_unknown", count: 1, detail: "" }]), false);
    expect(line?.next).toContain("Ask an operator");
  });

  test("begin before the pool is full", () => {
    const pool = (used_bytes: number) => ({ limit_bytes: 100, used_bytes, free_bytes: 0, cache_bytes: 0 });
    expect(shownProblems(summary([], { pool: pool(89) }), true)).toEqual([]);
    expect(shownProblems(summary([], { pool: pool(90) }), true)[0]).toMatchObject({
      tone: "warn",
      what: "The pool is 90% full",
    });
    expect(shownProblems(summary([], { pool: pool(100) }), true)[0]?.tone).toBe("bad");
  });

  test("of the pool are told: a sweep that is held for a whole period, and copies that are missing", () => {
    const since = "2026-11-30T00:00:00Z";
    const held: Pool = { ...wellPool, sweep: { ...wellPool.sweep, state: "held", since, reason: "no node told yet" } };
    const heldFor = (minutes: number) => shownProblems(summary([]), true, held, Date.parse(since) + minutes * 60_000);
    expect(heldFor(9)).toEqual([]);
    expect(heldFor(10)[0]).toMatchObject({ kind: "sweep_held", next: "No node told yet", to: "/pools/default" });
    const repair = { ...wellPool.repair, missing: { objects: 2, bytes: 4096 } };
    expect(shownProblems(summary([]), true, { ...wellPool, repair })).toMatchObject([
      { tone: "warn", what: "2 copies of objects are missing" },
    ]);
    const lost = [{ version: "v-1" }] as unknown as Pool["lost"];
    const repository = { state: "failing", trouble: ["n1: the keys are refused"] } as unknown as Pool["repository"];
    expect(shownProblems(summary([]), true, { ...wellPool, lost, repository } as Pool)).toMatchObject([
      { tone: "bad", what: "1 version has lost objects for good" },
      { tone: "bad", next: "N1: the keys are refused" },
    ]);
  });

  test("that are bad come before warnings", () => {
    const lines = shownProblems(
      summary([
        { kind: "instance_paused", count: 1, detail: "" },
        { kind: "instance_failed", count: 1, detail: "" },
      ]),
      true,
    );
    expect(lines.map(({ kind }) => kind)).toEqual(["instance_failed", "instance_paused"]);
  });

  test("of nodes agree with their number", () => {
    const lines = shownProblems(
      summary([
        { kind: "disk_full", count: 1, detail: "" },
        { kind: "objects_lost", count: 2, detail: "" },
      ]),
      true,
    );
    expect(lines.map(({ what }) => what)).toEqual(["1 node has a full disk", "2 nodes have lost objects of the pool"]);
  });

  test("that cannot be helped at once come last", () => {
    const lines = shownProblems(
      summary([
        { kind: "no_kvm", count: 3, detail: "" },
        { kind: "clock_off", count: 1, detail: "" },
      ]),
      true,
    );
    expect(lines.map(({ what }) => what)).toEqual([
      "1 node has a wrong clock",
      "3 nodes emulate their guests, so they are slow",
    ]);
  });
});
