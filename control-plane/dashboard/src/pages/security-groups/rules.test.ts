import { expect, test } from "vitest";
import { groupNameFor, isOpen, portRange, type Rule, ruleText, whatOf, whoOf } from "./rules.ts";

const rule = (more: Partial<Rule>): Rule => ({ direction: "in", protocol: "tcp", ...more });

test("a rule is told in words and as the command line has it", () => {
  const told = (each: Rule) => [`${whatOf(each)} ${whoOf(each)}`, ruleText(each)];
  expect(told(rule({ ports: "22" }))).toEqual(["TCP port 22 from everywhere", "in:tcp:22"]);
  expect(told(rule({ ports: "80-90", from: "10.0.0.0/8" }))).toEqual([
    "TCP ports 80 to 90 from 10.0.0.0/8",
    "in:tcp:80-90:10.0.0.0/8",
  ]);
  expect(told(rule({ protocol: "any", from: "g-1", group_name: "web" }))).toEqual([
    "everything from cards with web",
    "in:any:group=web",
  ]);
  expect(told(rule({ direction: "out", protocol: "udp", to: "192.0.2.53/32" }))).toEqual([
    "UDP, all ports to 192.0.2.53/32",
    "out:udp:192.0.2.53/32",
  ]);
  expect(whatOf(rule({ protocol: "icmp" }))).toBe("ping and other ICMP");
});

test("a published port is open if a rule lets it in from outside", () => {
  const ssh = { port: 22 };
  expect(isOpen([rule({ ports: "22" })], ssh)).toBe(true);
  expect(isOpen([rule({ ports: "20-30", from: "192.0.2.0/24" })], ssh)).toBe(true);
  expect(isOpen([rule({ protocol: "any" })], { port: 53, protocol: "udp" })).toBe(true);
  expect(isOpen([rule({})], ssh)).toBe(true);
});

test("a published port is closed to rules of other ports, protocols and directions, and to those from a group", () => {
  const ssh = { port: 22 };
  expect(isOpen([], ssh)).toBe(false);
  expect(isOpen([rule({ ports: "23-30" }), rule({ protocol: "udp" }), rule({ protocol: "icmp" })], ssh)).toBe(false);
  expect(isOpen([rule({ direction: "out", protocol: "any" })], ssh)).toBe(false);
  expect(isOpen([rule({ protocol: "any", from: "g-1", group_name: "default" })], ssh)).toBe(false);
});

test("ports are one or a range within 1 to 65535", () => {
  expect([portRange("22"), portRange(" 8000-8099 ")]).toEqual([
    [22, 22],
    [8000, 8099],
  ]);
  for (const wrong of ["", "0", "65536", "9-8", "22,80", "ssh", "1-"]) expect(portRange(wrong)).toBeNull();
});

test("a group for a port gets a name that nobody has", () => {
  expect(groupNameFor({ port: 22 }, [])).toBe("ssh");
  expect(groupNameFor({ port: 22 }, ["ssh"])).toBe("tcp-22");
  expect(groupNameFor({ port: 53, protocol: "udp" }, ["udp-53"])).toBe("udp-53-2");
});
