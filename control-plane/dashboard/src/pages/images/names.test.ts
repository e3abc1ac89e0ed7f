import { expect, test } from "vitest";
import { imageNameOf, nameTrouble } from "./names.ts";

test.each([
  ["debian-12.qcow2", "debian-12"],
  ["Debian 12 (generic).qcow2", "debian-12-generic"],
  ["12-jammy.img", "jammy"],
  ["ubuntu_24.04.raw", "ubuntu_24.04"],
  ["äöü.iso", ""],
  [`${"x".repeat(80)}.raw`, "x".repeat(55)],
])("the file %s gives the name %s", (file, name) => {
  expect(imageNameOf(file)).toBe(name);
  if (name !== "") expect(nameTrouble(name)).toBeUndefined();
});

test.each(["", "1st", "Has-Capitals", "a b", "x".repeat(56)])("the name '%s' is refused", (name) => {
  expect(nameTrouble(name)).toBeDefined();
});
