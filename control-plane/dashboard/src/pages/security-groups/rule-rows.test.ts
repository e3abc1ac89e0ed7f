import { expect, test } from "vitest";
import type { SecurityRule } from "../../api/security-groups.ts";
import { newRow, problemsOf, requestOf, rowFieldOf, rowsOf } from "./rule-rows.ts";

const rule = (more: Partial<SecurityRule>): SecurityRule => ({
  direction: "in",
  protocol: "tcp",
  ports: null,
  from: null,
  to: null,
  group_name: null,
  ...more,
});

test("rules that are edited and left as they are ask for the same rules", () => {
  const rules = [
    rule({ ports: "22", from: "192.0.2.0/24" }),
    rule({ protocol: "any", from: "g-1", group_name: "web" }),
    rule({ protocol: "udp", ports: "53", from: "g-2", group_name: "db" }),
    rule({ direction: "out", protocol: "any" }),
    rule({ direction: "out", protocol: "icmp", to: "fd00::/8" }),
  ];
  expect(requestOf(rowsOf({ id: "g-1", rules }), "g-1")).toEqual([
    { direction: "in", protocol: "tcp", ports: "22", from: "192.0.2.0/24" },
    { direction: "in", protocol: "any", from: "g-1" },
    { direction: "in", protocol: "udp", ports: "53", from: "g-2" },
    { direction: "out", protocol: "any" },
    { direction: "out", protocol: "icmp", to: "fd00::/8" },
  ]);
});

test("what was typed for another choice is not sent", () => {
  const rows = [newRow({ protocol: "icmp", ports: "22", range: "10.0.0.0/8", side: "any" })];
  expect(requestOf(rows, "web")).toEqual([{ direction: "in", protocol: "icmp" }]);
  expect(problemsOf(rows)).toEqual({});
});

test("one address is a range that has it alone", () => {
  const rows = ["192.0.2.7", "fd00::7"].map((range) => newRow({ side: "range", range }));
  expect(requestOf(rows, "web").map(({ from }) => from)).toEqual(["192.0.2.7/32", "fd00::7/128"]);
});

test("a group that is not made yet is named in its own rules by the name that it gets", () => {
  expect(requestOf([newRow({ protocol: "any", side: "group" })], "web")).toEqual([
    { direction: "in", protocol: "any", from: "web" },
  ]);
});

test("ports that are none and a missing range are told at their row", () => {
  const rows = [newRow({ ports: "22" }), newRow({ ports: "ssh" }), newRow({ side: "range" })];
  expect(Object.keys(problemsOf(rows))).toEqual(["1/ports", "2/side"]);
});

test("an error of the API stands at its row and field", () => {
  expect(rowFieldOf("/rules/3/ports")).toBe("3/ports");
  expect(rowFieldOf("/rules/0/from")).toBe("0/side");
  expect(rowFieldOf("/rules/12/to")).toBe("12/side");
  expect(rowFieldOf("/rules")).toBeUndefined();
  expect(rowFieldOf("/name")).toBeUndefined();
});
