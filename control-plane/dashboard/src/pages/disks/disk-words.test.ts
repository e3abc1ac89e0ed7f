import { expect, test } from "vitest";
import type { DiskState } from "../../api/disks.ts";
import { attachCommand, diskMeans, namedBy, takesDisks, verbsFor } from "./disk-words.ts";

const states: DiskState[] = ["attaching", "attached", "growing", "detaching", "detached", "unknown"];

test("a boot disk only grows, the firmware's variables stay as they are, and others come and go", () => {
  const verbs = (name: string, state: DiskState) => verbsFor({ name, state }).join(" ");
  expect(verbs("root", "attached")).toBe("grow");
  expect(states.map((state) => verbs("nvram", state)).join("")).toBe("");
  expect(verbs("data", "attached")).toBe("grow detach");
  expect(verbs("data", "attaching")).toBe("grow");
  expect(verbs("data", "detaching")).toBe("keep");
  expect(verbs("data", "detached")).toBe("attach grow delete");
  expect(verbs("data", "unknown")).toBe("");
});

test("only a disk of no instance can be deleted", () => {
  expect(states.filter((state) => verbsFor({ name: "data", state }).includes("delete"))).toEqual(["detached"]);
});

test("every state means something, also one of a newer release", () => {
  for (const state of [...states, "dreaming" as DiskState]) expect(diskMeans({ state })).not.toBe("");
});

test("instances that are gone, lost or on their way take no disks", () => {
  expect(["failed", "unknown", "migrating", "deleting"].filter((state) => takesDisks({ state } as never))).toEqual([]);
  expect(takesDisks({ state: "stopped" })).toBe(true);
});

test("the command line says the same", () => {
  expect(namedBy({ id: "d-1", name: "data", instance_name: "web.0" })).toBe("web.0/data");
  expect(namedBy({ id: "d-1", name: "data", instance_name: null })).toBe("d-1");
  expect(attachCommand("web.0", { disk: "d-1" })).toBe("muster disk attach web.0 d-1");
  expect(attachCommand("web.0", { name: "data", size_bytes: 1024 ** 3, source: { image: "set", version: 2 } })).toBe(
    "muster disk attach web.0 --name data --size 1GiB --image set@2",
  );
});
