import { expect, test } from "vitest";
import type { Pool } from "../../api/pools.ts";
import { adviceForPool, awaitsWord } from "./advice.ts";
import { restoredReason, wellPool } from "./fixtures.ts";
import { leftMs } from "./repair-words.ts";

const pool = (more: Partial<Pool>): Pool => ({ ...wellPool, ...more });
const keys = (more: Partial<Pool>) => adviceForPool(pool(more)).map(({ key, tone }) => `${key} ${tone}`);
const repair = (objects: number, bytes: number, bytes_per_s: number) => ({
  ...wellPool.repair,
  missing: { objects, bytes },
  bytes_per_s,
});

test("a pool that is well needs no advice", () => expect(adviceForPool(wellPool)).toEqual([]));

test("a held sweep tells its reason, and after a restore that the operator's word is missing", () => {
  const held = (reason: string) => ({ ...wellPool.sweep, state: "held" as const, reason });
  const [upload] = adviceForPool(pool({ sweep: held("the upload to image 'a' in project b has to end first") }));
  expect(upload).toMatchObject({ tone: "warn", detail: "the upload to image 'a' in project b has to end first" });
  expect(upload?.next).toContain("by itself");
  const [restored] = adviceForPool(pool({ sweep: held(restoredReason) }));
  expect(restored?.next).toContain("allow the sweep");
  expect(awaitsWord(held(restoredReason))).toBe(true);
  expect(awaitsWord({ ...held(restoredReason), state: "idle" })).toBe(false);
});

test("missing copies are work while nodes send them, and a warning when none does", () => {
  expect(keys({ repair: repair(3, 3 * 1024 ** 2, 1024 ** 2) })).toEqual(["copies_missing busy"]);
  expect(keys({ repair: repair(3, 3 * 1024 ** 2, 0) })).toEqual(["copies_missing warn"]);
  const [one] = adviceForPool(pool({ repair: repair(1, 3 * 1024 ** 2, 1024 ** 2) }));
  expect(one).toMatchObject({
    title: "1 copy of an object is missing",
    next: "Nodes make them again with 1 MiB/s; that takes about 3.0 s more.",
  });
});

test("the time left is known while something is sent", () => {
  expect(leftMs(repair(10, 10_000, 1000))).toBe(10_000);
  expect(leftMs(repair(10, 10_000, 0))).toBeNull();
  expect(leftMs(repair(0, 0, 1000))).toBeNull();
});

test("lost copies come before a pool that is nearly full, and few nodes come last", () => {
  const usage = { ...wellPool.usage, used_bytes: 0.95 * wellPool.usage.limit_bytes, lost_objects: 1, lost_bytes: 5 };
  expect(keys({ usage, nodes: 1 })).toEqual(["objects_lost bad", "pool_full warn", "few_nodes idle"]);
  expect(keys({ usage: { ...wellPool.usage, used_bytes: wellPool.usage.limit_bytes } })).toEqual(["pool_full bad"]);
});
