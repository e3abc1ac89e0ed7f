import { describe, expect, test } from "vitest";
import type { Node } from "../../api/nodes.ts";
import { adviceFor, conditionWord, joinCommand, noteOf } from "./advice.ts";

const node = (more: Partial<Node>) =>
  ({ state: "ready", schedulable: true, conditions: [], ...more }) as unknown as Node;

describe("a node", () => {
  test("that is well needs no advice", () => expect(adviceFor(node({}))).toEqual([]));

  test("that is silent comes before what it said last", () => {
    const conditions = [
      { kind: "no_kvm", detail: "guests are emulated" },
      { kind: "disk_full", detail: "1 GiB is left" },
    ];
    const list = adviceFor(node({ state: "silent", conditions }));
    expect(list.map(({ key }) => key)).toEqual(["silent", "disk_full", "no_kvm"]);
    expect(list[1]?.detail).toBe("1 GiB is left");
  });

  test("that is out says so in a word and as advice", () => {
    const out = node({ state: "silent", out: true });
    expect(adviceFor(out).map(({ key }) => key)).toEqual(["silent", "out"]);
    expect(noteOf(out)).toBe("out");
    expect(noteOf(node({ state: "silent", out: true, schedulable: false }))).toBe("out, cordoned");
    expect(noteOf(node({ out: true, reason: "it is out: other nodes copy what it has" }))).toContain("other nodes");
    expect(noteOf(node({ reason: "drained", schedulable: false }))).toBe("drained");
    expect(noteOf(node({}))).toBeNull();
  });

  test("that is drained or has a failed disk is told that, and not that it is out or cordoned", () => {
    const drain = { since: "", left: { objects: 0, bytes: 0 }, bytes_per_s: 0, ends_at: null };
    const drained = node({ out: true, schedulable: false, drain: { state: "drained", ...drain } });
    expect(adviceFor(drained).map(({ key }) => key)).toEqual(["drained"]);
    expect(noteOf(node({ schedulable: false, drain: { state: "draining", ...drain } }))).toBe("draining");
    const failed = node({ out: true, conditions: [{ kind: "disk_failed", detail: "fsync failed" }] });
    expect(adviceFor(failed).map(({ key }) => key)).toEqual(["disk_failed"]);
  });

  test("with a condition that this page does not know still shows it", () => {
    const [advice] = adviceFor(node({ conditions: [{ kind: "too_hot", detail: "90 degrees" }] }));
    expect(advice).toMatchObject({ title: "too hot", detail: "90 degrees" });
    expect(conditionWord("too_hot")).toBe("too hot");
  });

  test("that is cordoned and silent is not told twice that nothing starts there", () => {
    expect(adviceFor(node({ state: "silent", schedulable: false }))).toHaveLength(1);
    expect(adviceFor(node({ schedulable: false }))[0]?.key).toBe("cordoned");
  });
});

describe("the command to join", () => {
  test("keeps the token out of the arguments", () => {
    const text = joinCommand("secret", "https://muster.example:7400", "192.0.2.11", "n4");
    const run = text.slice(text.indexOf("muster-agent"));
    expect(run).not.toContain("secret");
    expect(run).toContain("--listen 192.0.2.11:7450 --name n4");
    expect(run).toContain("--controller https://muster.example:7400");
  });
  test("takes another port, and leaves a place where the address is not known", () => {
    expect(joinCommand("t", "u", "192.0.2.11:9000", "")).toMatch(/--listen 192.0.2.11:9000$/);
    expect(joinCommand("t", "u", "", "")).toContain("--listen ADDRESS:7450");
  });
});
