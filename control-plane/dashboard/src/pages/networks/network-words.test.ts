import { expect, test } from "vitest";
import { reachedAt, sshLine } from "./network-words.ts";

const port = { node_address: "192.0.2.7", node_port: 30000, port: 22, protocol: "tcp" as const };

test("a published port of an SSH server is a line to copy", () => {
  expect(sshLine(port, "debian")).toBe("ssh -p 30000 debian@192.0.2.7");
  expect(sshLine(port, null)).toBe("ssh -p 30000 root@192.0.2.7");
  expect(sshLine({ ...port, node_address: "2001:db8::7" }, null)).toBe("ssh -p 30000 root@2001:db8::7");
});

test("other ports and instances without a node have no such line", () => {
  expect(sshLine({ ...port, port: 80 }, null)).toBeNull();
  expect(sshLine({ ...port, protocol: "udp" }, null)).toBeNull();
  expect(sshLine({ ...port, node_address: null }, null)).toBeNull();
});

test("an address of version 6 is in brackets before a port", () => {
  expect(reachedAt(port)).toBe("192.0.2.7:30000");
  expect(reachedAt({ ...port, node_address: "2001:db8::7" })).toBe("[2001:db8::7]:30000");
  expect(reachedAt({ ...port, node_address: null })).toBeNull();
});
