import { expect, test } from "vitest";
import type { Deployment } from "../../../api/deployments.ts";
import {
  anotherDisk,
  diskFieldOf,
  diskOf,
  diskSourceOf,
  diskSourceText,
  disksLike,
  disksOf,
  diskText,
} from "./disks.ts";

const id = "0192f0c1-2345-7abc-8def-0123456789ab";

test("a disk is the same after it was in the URL, whatever was typed", () => {
  for (const disk of [
    { name: "data", size: "20 GiB", source: "debian@2" },
    { name: "", size: "", source: "" },
    { name: "a;b", size: "1,5%", source: ";" },
  ]) {
    expect(diskOf(diskText(disk))).toEqual(disk);
  }
  expect(diskText({ name: "data", size: "1GiB", source: "" })).toBe("data;1GiB");
});

test("a source is an image, one of its versions, or a version by its id; nothing is a blank disk", () => {
  expect(diskSourceOf(" ")).toBeUndefined();
  expect(diskSourceOf("debian")).toEqual({ image: "debian" });
  expect(diskSourceOf("debian@12")).toEqual({ image: "debian", version: 12 });
  expect(diskSourceOf(id)).toEqual({ version: id });
  for (const text of ["", "debian", "debian@12", id]) expect(diskSourceText(diskSourceOf(text))).toBe(text);
  expect(diskSourceText({ image: id, version: 2 }, "debian")).toBe("debian@2");
});

test("what is typed becomes the request, and a size that cannot be read is told at its disk", () => {
  const data = { name: " data ", size: "20g", source: "" };
  expect(disksOf([data, { name: "seed", size: "1 GiB", source: "set@3" }])).toEqual({
    disks: [
      { name: "data", size_bytes: 20 * 1024 ** 3 },
      { name: "seed", size_bytes: 1024 ** 3, source: { image: "set", version: 3 } },
    ],
    unread: {},
  });
  expect(Object.keys(disksOf([data, { ...data, size: "" }]).unread)).toEqual(["disk/1/size"]);
});

test("each new disk has a name of its own", () => {
  const first = anotherDisk([]);
  expect([first.name, anotherDisk([first]).name]).toEqual(["data", "data-2"]);
});

test("an error of the API stands at its disk and field", () => {
  expect(diskFieldOf("/disks/1/size_bytes")).toBe("disk/1/size");
  expect(diskFieldOf("/disks/0/source/version")).toBe("disk/0/source");
  expect(diskFieldOf("/disks")).toBe("disks");
  expect(diskFieldOf("/disk_bytes")).toBeUndefined();
});

test("another deployment like this one gets the same disks, but a fork not those that its snapshot brings", () => {
  const disks = [
    { name: "data", size_bytes: 1024 ** 3, source: null, source_name: null },
    { name: "seed", size_bytes: 1024 ** 3, source: { image: id, version: 2 }, source_name: "set" },
  ];
  const like = (source: object) => disksLike({ disks, source } as unknown as Deployment);
  expect(like({ image: id })).toEqual(["data;1GiB", "seed;1GiB;set@2"]);
  expect(like({ snapshot: id })).toEqual(["seed;1GiB;set@2"]);
});
