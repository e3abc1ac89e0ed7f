import { expect, test } from "vitest";
import type { MusterEvent } from "./feed.ts";
import { event } from "./fixtures.ts";
import { isStale, nothingTouched, touch } from "./stale.ts";

const staleAfter = (...events: MusterEvent[]) => {
  const touched = nothingTouched();
  for (const each of events) touch(touched, each);
  return (key: unknown[]) => isStale(key, touched);
};

test("an event makes stale the lists of its noun, and its thing under id and name, but no other thing", () => {
  const stale = staleAfter(event("instance", "i-1", "web.0"));
  expect(stale(["instances", "list", "*", {}])).toBe(true);
  expect(stale(["instances", "one", "i-1", "default", "log"])).toBe(true);
  expect(stale(["instances", "one", "web.0", "default", ""])).toBe(true);
  expect(stale(["instances", "one", "i-2", "default", ""])).toBe(false);
  expect(stale(["images", "list", "*", {}])).toBe(false);
  expect(stale(["me"])).toBe(false);
});

test("what counts or contains a thing is stale with it", () => {
  const stale = staleAfter(event("instance", "i-1"));
  expect(stale(["deployments", "one", "d-1", "default", ""])).toBe(true);
  expect(stale(["nodes", "list", "*", {}])).toBe(true);
  expect(stale(["networks", "one", "n-1", "default", ""])).toBe(true);
  expect(stale(["summary", "one", "", "*", ""])).toBe(true);
  expect(staleAfter(event("version", "v-1"))(["images", "one", "i-1", "default", ""])).toBe(true);
});

test("an event of a disk makes its instance stale, and one of an instance the disks that go with it", () => {
  const ofDisk = staleAfter(event("disk", "k-1", "web.0/data"));
  expect(ofDisk(["disks", "one", "k-1", "default", ""])).toBe(true);
  expect(ofDisk(["disks", "one", "k-2", "default", ""])).toBe(false);
  expect(ofDisk(["instances", "one", "i-1", "default", ""])).toBe(true);
  expect(staleAfter(event("instance", "i-1"))(["disks", "list", "default", {}])).toBe(true);
});

test("an event of the pool, or of a node, makes the pool stale", () => {
  const key = ["pools", "one", "default", "default", ""];
  expect(staleAfter(event("pool", "default", "default"))(key)).toBe(true);
  expect(staleAfter(event("node", "n-1", "n1"))(key)).toBe(true);
  expect(staleAfter(event("image", "i-1"))(key)).toBe(false);
});

test("an event of an operation makes that operation stale, whatever it works on", () => {
  const stale = staleAfter(event("deployment", "d-1", "web", "o-1"));
  expect(stale(["operations", "one", "o-1", "default", ""])).toBe(true);
  expect(stale(["operations", "one", "o-2", "default", ""])).toBe(false);
  expect(stale(["operations", "list", "*", {}])).toBe(true);
});

test("an event of a security group makes that group stale, and no network", () => {
  const stale = staleAfter(event("security_group", "g-1", "web"));
  expect(stale(["security-groups", "one", "g-1", "default", ""])).toBe(true);
  expect(stale(["security-groups", "list", "default", {}])).toBe(true);
  expect(stale(["networks", "list", "default", {}])).toBe(false);
});
